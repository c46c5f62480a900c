"""`FromConceptSets`: prompts that show a class with what is valid for it, and break what confounds it (AACA)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aaca.concepts.concept_sets import Concept, ConceptSets
from aaca.debugset.prompts.base import SLOT, Prompt, PromptWriter, class_noun, thing
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import file_sha256

RECIPES = ("valid", "decorrelate", "rival_without", "elsewhere")


class FromConceptSets(PromptWriter):
    """Four recipes, each with a share of a class's images; one that finds nothing to ask for leaves its to the others.

    - `valid`: the class with a valid concept: "a bird with a beak".
    - `decorrelate`: the class keeps its label in the company of what makes the model say something else: "a mammal with
      fur on sand". Confounders of the class itself, and what other classes are known by.
    - `rival_without`: the class without what confounds others into it, or what it is known by itself: "a bird with a
      beak", and "sand" as the negative prompt.
    - `elsewhere`: the class in front of backgrounds that confound nobody: "a bird on snow" (ours).

    Args:
        weights: recipe → share of a class's images; they are scaled to sum to 1.
        file: concept sets written or edited by hand; None: those that this run discovers.
        most: concepts of a kind and class that are used, the best first.

    """

    has_recipes = True

    def __init__(self, weights: dict[str, float], file: str | None = None, most: int = 5) -> None:
        for name, weight in weights.items():
            if name not in RECIPES:
                raise ConfigError(f"prompts.weights.{name}: no such recipe; {nearest(name, RECIPES)}")
            if weight < 0:
                raise ConfigError(f"prompts.weights.{name}: {weight}; expected 0 or more")
        if not any(weights.values()):
            raise ConfigError(f"prompts.weights: all 0; expected a share for at least one of {', '.join(RECIPES)}")
        if most < 1:
            raise ConfigError(f"prompts.most: {most}; expected 1 or more")
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"prompts.file: no file {file}; expected concept sets (`aaca annotate` makes them)")
        self.weights, self.file, self.most = weights, file, most

        self.needs_concepts = file is None
        self.sets: ConceptSets | None = None

    def __str__(self) -> str:
        """Its recipes and their shares."""
        total = sum(self.weights.values())
        return ", ".join(f"{name} {weight / total:.0%}" for name, weight in self.weights.items() if weight)

    def using(self, sets: ConceptSets) -> "FromConceptSets":
        """The same with these sets."""
        writer = FromConceptSets(self.weights, self.file, self.most)
        writer.sets = sets
        return writer

    def check(self, classes: Sequence[str]) -> None:
        """Raise `DataError` where the file does not fit the classes."""
        if self.file is not None:
            ConceptSets.load(Path(self.file), classes)

    def fingerprint(self) -> dict[str, Any]:
        """The file's content."""
        return {} if self.file is None else {"concept_sets": file_sha256(Path(self.file))}

    def write(self, classes: Sequence[str], cache: Path) -> list[Prompt]:
        """Prompts of every class. Raises `DataError` for a class that no recipe with a share finds anything for."""
        sets = ConceptSets.load(Path(self.file), classes) if self.file is not None else self.sets
        assert sets is not None
        found = []
        for label, name in enumerate(classes):
            by_recipe = {
                recipe: prompts
                for recipe in RECIPES
                if self.weights.get(recipe) and (prompts := self._of(recipe, label, name, classes, sets))
            }
            if not by_recipe:
                used = ", ".join(recipe for recipe in RECIPES if self.weights.get(recipe))
                raise DataError(
                    f"prompts: the concept sets give nothing to ask for of class {name!r} by {used}; "
                    "expected valid concepts of it"
                )
            total = sum(self.weights[recipe] for recipe in by_recipe)
            for recipe, prompts in by_recipe.items():
                parts = sum(part for part, _ in prompts)
                found += [
                    Prompt(**prompt, recipe=recipe, weight=self.weights[recipe] / total * part / parts)
                    for part, prompt in prompts
                ]
        return found

    def _of(
        self, recipe: str, label: int, name: str, classes: Sequence[str], sets: ConceptSets
    ) -> list[tuple[float, dict[str, Any]]]:
        # (weight, prompt): a confounder's score is its weight
        own = sets.of(name)
        beyond = [concept for concept in own.valid if concept.name.lower() != class_noun(name)]
        valid: list[Concept | None] = [*beyond[: self.most]]
        if not valid and (own.valid or recipe != "valid"):  # nothing but the class itself
            valid = [None]
        if recipe == "valid":
            return [(1.0, _prompt(label, concept, None, "")) for concept in valid]
        if recipe == "decorrelate":
            breaking = _company(name, classes, sets)[: self.most]
            return [
                (_weight(other, breaking), _prompt(label, valid[turn % len(valid)], other, ""))
                for turn, other in enumerate(breaking)
            ]
        if recipe == "rival_without":
            absent = _crutches(name, classes, sets)[: self.most]
            return [
                (_weight(other, absent), _prompt(label, valid[turn % len(valid)], None, other.name))
                for turn, other in enumerate(absent)
            ]
        places = _neutral_places(name, classes, sets)[: self.most]
        return [(1.0, _prompt(label, valid[turn % len(valid)], place, "")) for turn, place in enumerate(places)]


def _weight(concept: Concept, among: Sequence[Concept]) -> float:
    # in proportion to the score; 1 for all where one has none (written by hand)
    scores = [other.score for other in among]
    return concept.score if concept.score and all(scores) and min(map(float, scores)) > 0 else 1.0  # type: ignore[arg-type]


def _company(name: str, classes: Sequence[str], sets: ConceptSets) -> list[Concept]:
    # what makes the model take the class for another: seen in its failures, or known to carry another class
    own_crutches = {concept.name for concept in _crutches(name, classes, sets)}
    seen = [concept for concept in sets.of(name).confounded if concept.name not in own_crutches]
    others = [concept for other in classes if other != name for concept in _crutches(other, classes, sets)]
    valid = {concept.name for concept in sets.of(name).valid}
    return [concept for concept in _distinct([*seen, *others]) if concept.name not in own_crutches | valid]


def _crutches(name: str, classes: Sequence[str], sets: ConceptSets) -> list[Concept]:
    # what the model knows the class by, and should not: confounders of it without a rival, or of others towards it
    own = [concept for concept in sets.of(name).confounded if not concept.rival]
    towards = [concept for other in classes for concept in sets.of(other).confounded if concept.rival == name]
    valid = {concept.name for concept in sets.of(name).valid}
    ranked = sorted([*towards, *own], key=lambda concept: -(concept.score or 0.0))
    return [concept for concept in _distinct(ranked) if concept.name not in valid]


def _neutral_places(name: str, classes: Sequence[str], sets: ConceptSets) -> list[Concept]:
    blamed = {concept.name for other in classes for concept in sets.of(other).confounded}
    return _distinct(
        concept
        for other in classes
        for concept in sets.of(other).neutral
        if concept.kind == "background" and concept.name not in blamed
    )


def _distinct(concepts: Iterable[Concept]) -> list[Concept]:
    found: dict[str, Concept] = {}
    for concept in concepts:
        found.setdefault(concept.name, concept)
    return list(found.values())


def _prompt(label: int, valid: Concept | None, company: Concept | None, negative: str) -> dict[str, Any]:
    text = SLOT
    if valid is not None:
        text += f" {_joined(valid)}"
    if company is not None:
        text += (
            f" {_joined(company)}" if company.kind == "background" or valid is None else f" and {thing(company.name)}"
        )
    asked = company or valid  # what the filters look for in the image
    return {
        "label": label,
        "text": f"a photo of {text}",
        "negative": negative,
        "concept": asked.name if asked is not None else "",
    }


def _joined(concept: Concept) -> str:
    if concept.kind == "background":
        return f"on {concept.name}"
    return concept.name if concept.kind == "relation" else f"with {thing(concept.name)}"
