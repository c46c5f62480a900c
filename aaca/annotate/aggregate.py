"""From answers to concept sets: votes and relevance by people, scores by the evidence; who disagrees; bad labels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from aaca.annotate.agreement import krippendorff_alpha
from aaca.annotate.task import SUSPECT, Answer
from aaca.concepts.concept_sets import LONGEST, ClassConcepts, Concept, ConceptKind, normal
from aaca.runtime.errors import ConfigError

HIGHEST = 5  # relevance


@dataclass(frozen=True, kw_only=True)
class VoteRules:
    """When answers make a verdict.

    `votes`: answers that a (class, concept) needs, from at least `people` (all, where fewer answered). Mean relevance
    up to `confounded` is a confounder, from `valid` on valid, between neutral. `valid_votes`: answers that name it as
    what the class should be known by. `evidence`: a confounder also needs the statistics to say so; without them
    people's word is enough.
    `merge`: name → the name it counts as (a run with `clip=` proposes pairs in `synonyms.csv`).
    """

    votes: int = 3
    people: int = 2
    confounded: float = 2.5
    valid: float = 3.5
    valid_votes: int = 2
    evidence: bool = True
    merge: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `ConfigError` on limits that make no sense."""
        for name, other in self.merge.items():
            if not 0 < len(normal(other)) <= LONGEST or not other.isprintable():
                raise ConfigError(f"votes.merge.{name}: {other!r}; expected a name of 1…{LONGEST} characters")
            if normal(other) in {normal(key) for key in self.merge}:
                raise ConfigError(
                    f"votes.merge: {name} counts as {other}, which is merged itself; expected a last name"
                )
        for name in ("votes", "people", "valid_votes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"votes.{name}: {getattr(self, name)}; expected 1 or more")
        if not 1 <= self.confounded < self.valid <= HIGHEST:
            raise ConfigError(
                f"votes.confounded, votes.valid: {self.confounded}, {self.valid}; expected 1 ≤ confounded < valid ≤ 5"
            )


@dataclass(frozen=True)
class Verdicts:
    """What the answers add up to: concepts a class, agreement, images whose label people call wrong, difficulty.

    `table`: one row a (class, concept) with votes, people, relevance, valid_votes, verdict.
    """

    classes: dict[str, ClassConcepts]
    alpha: float
    table: pd.DataFrame
    mislabelled: list[str]
    difficulty: dict[str, float]  # image → mean relevance / 5: nearer 0 is harder (AACA)
    counts: dict[str, int] = field(default_factory=dict)


def aggregate(
    answers: Sequence[Answer],
    evidence: pd.DataFrame,
    rules: VoteRules,
    classes: Sequence[str],
) -> Verdicts:
    """Verdicts of all classes. `evidence`: its table."""
    answers = [merged(answer, rules.merge) for answer in answers]
    evidence = evidence.assign(concept=[counted(name, rules.merge) for name in evidence["concept"]])
    mislabelled = _mislabelled(answers)
    usable = [answer for answer in answers if answer.image_id not in mislabelled and answer.flag != "cannot tell"]
    relevance: dict[tuple[str, str], list[float]] = defaultdict(list)
    people: dict[tuple[str, str], set[str]] = defaultdict(set)
    valid: dict[tuple[str, str], int] = defaultdict(int)
    kinds: dict[str, ConceptKind] = dict(zip(map(normal, evidence["concept"]), evidence["kind"], strict=True))
    for answer in usable:
        if answer.content and answer.relevance is not None:
            key = (answer.class_, normal(answer.content))
            relevance[key].append(answer.relevance)
            people[key].add(answer.annotator)
            kinds.setdefault(key[1], answer.type)
        for name in {normal(name) for name in answer.valid}:
            valid[answer.class_, name] += 1
            people[answer.class_, name].add(answer.annotator)
    everybody = len({answer.annotator for answer in usable})
    rows = []
    for key in sorted({*relevance, *valid}):
        given = relevance.get(key, [])
        mean = float(np.mean(given)) if given else None
        enough = len(given) >= rules.votes and len(people[key]) >= min(rules.people, everybody)
        low = enough and mean is not None and mean <= rules.confounded
        high = (enough and mean is not None and mean >= rules.valid) or valid.get(key, 0) >= rules.valid_votes
        found = _evidence_of(evidence, *key)
        if low and rules.evidence and not found["confounds"]:
            low = False
        verdict = "contested" if low and high else "confounded" if low else "valid" if high else "neutral"
        rows.append(
            {"class": key[0], "concept": key[1], "votes": len(given), "people": len(people[key]), "relevance": mean}
            | {"valid_votes": valid.get(key, 0), "verdict": verdict, "rival": found["rival"], "score": found["score"]}
        )
    columns = ["class", "concept", "votes", "people", "relevance", "valid_votes", "verdict", "rival", "score"]
    table = pd.DataFrame(rows, columns=columns)
    return Verdicts(
        classes={name: _sets(table[table["class"] == name], kinds) for name in classes},
        alpha=krippendorff_alpha(_matrix(usable)),
        table=table,
        mislabelled=mislabelled,
        difficulty=_difficulty(usable),
        counts={"answers": len(answers), "people": everybody, "usable": len(usable)},
    )


def merged(answer: Answer, merge: Mapping[str, str]) -> Answer:
    """The answer with names that count as another replaced by that."""
    valid = dict.fromkeys(counted(name, merge) for name in answer.valid)
    return replace(answer, content=counted(answer.content, merge), valid=tuple(valid))


def counted(name: str, merge: Mapping[str, str]) -> str:
    """The name that a name counts as."""
    return {normal(old): new for old, new in merge.items()}.get(normal(name), name)


def _evidence_of(evidence: pd.DataFrame, true: str, concept: str) -> dict[str, object]:
    # the strongest sign that the concept misleads about the class: as a rival's, or as the class's own crutch
    own = evidence[(evidence["class"] == true) & (evidence["concept"].map(normal) == concept)]
    best: dict[str, object] = {"confounds": False, "rival": "", "score": None}
    score = -1.0
    for row in own.itertuples():
        for flag, value, rival in ((row.confounder, row.S_conf, row.rival), (row.relied_on, row.S_rely, "")):
            if flag and value > score:
                score = float(value)
                best = {"confounds": True, "rival": rival, "score": score}
    if not best["confounds"] and len(own):
        top = own["S_val"].max()
        best["score"] = None if pd.isna(top) else float(top)
    return best


def _sets(rows: pd.DataFrame, kinds: Mapping[str, ConceptKind]) -> ClassConcepts:
    def of(verdict: str) -> tuple[Concept, ...]:
        own = rows[rows["verdict"] == verdict]
        order = own.assign(score=own["score"].astype(float)).sort_values(
            ["score", "valid_votes", "votes"], ascending=False, na_position="last"
        )
        return tuple(
            Concept(
                name=row.concept,
                kind=kinds.get(row.concept, "object"),
                rival=row.rival if verdict == "confounded" else "",
                score=None if pd.isna(row.score) else float(row.score),
                votes=int(row.votes + row.valid_votes if verdict == "valid" else row.votes),
                relevance=None if row.relevance is None or pd.isna(row.relevance) else float(row.relevance),
            )
            for row in order.itertuples()
        )

    return ClassConcepts(of("confounded"), of("valid"), of("neutral"), of("contested"))


def _mislabelled(answers: Sequence[Answer]) -> list[str]:
    # by most of the people who saw the image; who said so in one of its tasks has said so
    flags: dict[str, dict[str, bool]] = defaultdict(dict)
    for answer in answers:
        own = flags[answer.image_id]
        own[answer.annotator] = own.get(answer.annotator, False) or answer.flag == "label wrong"
    return sorted(image for image, said in flags.items() if sum(said.values()) * 2 > len(said))


def _matrix(answers: Sequence[Answer]) -> np.ndarray:
    # relevance, people × (task, what they named)
    units = sorted({(answer.task_id, normal(answer.content)) for answer in answers if answer.content})
    people = sorted({answer.annotator for answer in answers})
    values = np.full((len(people), len(units)), np.nan)
    rows, columns = ({name: place for place, name in enumerate(names)} for names in (people, units))
    for answer in answers:
        if answer.content and answer.relevance is not None:
            values[rows[answer.annotator], columns[answer.task_id, normal(answer.content)]] = answer.relevance
    return values


def _difficulty(answers: Sequence[Answer]) -> dict[str, float]:
    given: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        if answer.relevance is not None and not answer.task_id.startswith(f"{SUSPECT}/"):
            given[answer.image_id].append(answer.relevance)
    return {image: float(np.mean(values)) / HIGHEST for image, values in sorted(given.items())}
