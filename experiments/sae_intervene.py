"""The job `intervene`: concepts switched off, and what that does to the groups."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.concepts.concept_sets import ConceptSets
from aaca.concepts.intervene import Intervention, Selection, by_concepts, by_ids, by_name, by_text, random_like
from aaca.concepts.vocab_store import VocabStore
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.stages import Stage
from aaca.training.sparse_probe import Probe

from .sae_config import InterveneConfig
from .sae_files import load_names, load_probe, load_sae

if TYPE_CHECKING:
    from .sae_run import SaeRun


def intervene(run: "SaeRun", saes: Stage, names: Stage, probe: Stage) -> pd.DataFrame:
    """A row an intervention: as it is, switched off, refitted without, and controls of as many random live concepts.

    On audit, where one chooses, and on test, where one looks once.
    """
    options = run.options.intervene
    frame, words = load_names(names)
    atoms = load_sae(saes.folder)[0].atoms.detach().numpy()
    chosen = selected(options, words, atoms, names.folder / "vocabulary", run._benchmark().classes)
    trained = run.stages.codes(saes, "train")[1]
    shown = {split: run.stages.codes(saes, split)[1] for split in ("audit", "test")}
    seen = shown, np.asarray(trained.mean(axis=0)).ravel()
    first = load_probe(probe)
    density = frame[frame["rank"] == 1]["density"].to_numpy(dtype=float)
    live = np.flatnonzero(density > 0)
    chosen = Selection.of(latent for latent in chosen.latents if density[latent] > 0)
    if not chosen.latents:
        raise ConfigError(f"intervene: {what(options)}: none of these concepts is ever on; expected ones that are")
    rows = [_row(run, "as it is", Selection.of([]), *seen, first, options)]
    rows.append(_row(run, f"{options.kind}: {what(options)}", chosen, *seen, first, options))
    controls = []
    for number in range(options.controls):
        other = random_like(chosen, live, run.options.seed + number)
        controls.append(_row(run, "random", other, *seen, first, options))
        if options.refit:
            again = run.stages.probe(saes, run.options.probe, without=other.latents)
            controls.append(_row(run, "random, refitted without", Selection.of([]), *seen, load_probe(again), options))
            controls[-1]["latents"] = len(other.latents)
    if options.refit:
        again = run.stages.probe(saes, run.options.probe, without=chosen.latents)
        rows.append(_row(run, "refitted without", Selection.of([]), *seen, load_probe(again), options))
        rows[-1]["latents"] = len(chosen.latents)
    spread = pd.DataFrame(controls).groupby("name", sort=False).mean().reset_index()
    spread["name"] += f", mean of {options.controls}"
    return pd.concat([pd.DataFrame(rows), spread], ignore_index=True)


def what(options: InterveneConfig) -> str:
    """What was chosen, as a person would say it."""
    way = options.chosen()
    value: Any = getattr(options, way)
    return ", ".join(map(str, value)) if isinstance(value, list) else Path(str(value)).name


def selected(
    options: InterveneConfig, words: list[str], atoms: np.ndarray, vocabulary: Path, classes: tuple[str, ...]
) -> Selection:
    """The latents that the options mean. Raises `ConfigError` where nothing fits."""
    way = options.chosen()
    if way == "latents":
        return by_ids(options.latents or [], len(words))
    if way == "names":
        return by_name(words, *(options.names or []))
    if way == "sets":
        found = Selection.of([])
        for one in by_concepts(ConceptSets.load(Path(str(options.sets)), classes), words).values():
            found = found | one
        return found
    vocab = VocabStore.load(vocabulary)
    against = None if not options.against else np.stack([_vector(vocab, word, "against") for word in options.against])
    found = Selection.of([])
    for word in options.text or []:
        found = found | by_text(atoms, _vector(vocab, word, "text"), words, options.least_cosine, against=against)
    return found


def _vector(vocab: VocabStore, word: str, key: str) -> np.ndarray:
    if word not in vocab.words:
        raise ConfigError(f"intervene.{key}: {word!r} is not in the vocabulary; {nearest(word, vocab.words)}")
    return np.asarray(vocab.vectors[vocab.words.index(word)])


def _row(
    run: "SaeRun",
    name: str,
    chosen: Selection,
    codes: dict[str, csr_array],
    means: np.ndarray,
    probe: Probe,
    options: InterveneConfig,
) -> dict[str, Any]:
    act = Intervention(options.kind, chosen.latents, options.value)
    weight, bias = probe.raw()
    changed = act.weight(weight), act.bias(weight, bias, means)
    found: dict[str, Any] = {"name": name, "latents": len(chosen.latents)}
    for split, seen in codes.items():
        numbers = run.outcome(split, act.codes(seen), *changed)
        found |= {f"{split}_{key}": value for key, value in numbers.items() if key != "balanced_accuracy"}
    return found
