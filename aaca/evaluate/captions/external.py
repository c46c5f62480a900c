"""Figures that need programs or weights from elsewhere: METEOR and SPICE (Java), CLIPScore (a CLIP model).

Nothing is downloaded here: what cannot be computed says what it lacks, `missing` and `missing_clip` before it is tried.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from aaca.evaluate.captions.texts import Candidates, References, paired
from aaca.runtime.errors import AacaError, ConfigError, nearest

JAVA_METRICS = ("meteor", "spice")
SPICE_JAVA = 8
"""The newest Java that SPICE's jar runs on; a later one refuses its reflective access."""
_CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def missing(metric: str) -> str | None:
    """What one of `JAVA_METRICS` lacks on this machine, in one line; None where it can run.

    Raises `ConfigError` for any other name.
    """
    if metric not in JAVA_METRICS:
        raise ConfigError(f"external: {metric!r} is no such metric; {nearest(metric, JAVA_METRICS)}")
    package = _package()
    if package is None:
        return f"{metric}: needs the Python package pycocoevalcap: pip install 'aaca[captions]'"
    java = _java_version()
    if java is None:
        return f"{metric}: needs Java; no `java` that runs is on the PATH"
    if metric == "meteor":
        jar = package / "meteor" / "meteor-1.5.jar"
        return None if jar.is_file() else f"meteor: {jar} is not there; install pycocoevalcap anew"
    lost = [name for name in _CORENLP if not (package / "spice" / "lib" / name).is_file()]
    if lost:
        return f"spice: needs {' and '.join(lost)} (Stanford CoreNLP 3.6.0) in {package / 'spice' / 'lib'}"
    if java > SPICE_JAVA:
        return f"spice: needs Java {SPICE_JAVA} or older; `java` on the PATH is {java}"
    return None


def java_score(metric: str, candidates: Candidates, references: References) -> float:
    """METEOR 1.5 or SPICE of the set, ×100. Raises `AacaError` naming what is missing or that Java failed."""
    names = paired(candidates, references)
    lack = missing(metric)
    if lack is not None:
        raise AacaError(lack)
    truth = {i: [" ".join(text.split()) for text in references[name]] for i, name in enumerate(names)}
    said = {i: [" ".join(candidates[name].split())] for i, name in enumerate(names)}
    try:
        return 100 * float(_scorer(metric).compute_score(truth, said)[0])
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # a Java that dies leaves a pipe without numbers
        raise AacaError(f"{metric}: its Java program failed ({type(error).__name__}: {error})") from error


def missing_clip(weights: Path) -> str | None:
    """What `clip_score` lacks with the folder `weights`, in one line; None where it can be tried."""
    if find_spec("transformers") is None:
        return "clip_score: needs the Python package transformers"
    lost = [name for name in ("config.json", "model.safetensors") if not (weights / name).is_file()]
    return f"clip_score: {weights / lost[0]} is not there; expected the folder of a CLIP model" if lost else None


def clip_score(candidates: Candidates, image: Callable[[str], np.ndarray], weights: Path, batch: int = 32) -> float:
    """CLIPScore of the set: max(100·c, 0), c the mean cosine of image and caption (after Hessel et al., EMNLP 2021).

    `image` gives a name's image, uint8 `[H, W, 3]`; `weights` is a folder in the layout of transformers. Captions
    beyond CLIP's length are cut. Computed here, as torchmetrics does, because torchmetrics 1.9 fails with transformers
    5. Raises `AacaError` naming the package or file that is missing.
    """
    lack = missing_clip(weights)
    if lack is not None:
        raise AacaError(lack)
    import torch

    model, processor = _clip(weights)
    names, longest = list(candidates), model.config.text_config.max_position_embeddings
    cosines: list[float] = []
    for start in range(0, len(names), batch):
        some = names[start : start + batch]
        fed = processor(
            text=[candidates[name] for name in some],
            images=[image(name) for name in some],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=longest,
        )
        with torch.no_grad():
            out = model(**fed)
        cosines += torch.cosine_similarity(out.text_embeds, out.image_embeds).tolist()
    return max(100 * float(np.mean(cosines)), 0.0)


def _clip(weights: Path) -> tuple[Any, Any]:
    """Model, ready to be asked, and processor; from disk alone."""
    from transformers import CLIPModel, CLIPProcessor

    try:
        model, told = CLIPModel.from_pretrained(
            weights, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        processor = CLIPProcessor.from_pretrained(weights, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise AacaError(f"clip_score: {weights} does not load as a CLIP model and processor ({reason})") from error
    if told["missing_keys"]:  # transformers would leave these at random and only warn
        raise AacaError(f"clip_score: {weights / 'model.safetensors'} lacks {sorted(told['missing_keys'])[0]}")
    return model.eval(), processor


def _package() -> Path | None:
    spec = find_spec("pycocoevalcap")
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _java_version() -> int | None:
    """The major version of the Java on the PATH (8 for "1.8.0"), None where there is none that runs."""
    program = shutil.which("java")
    if program is None:
        return None
    told = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr)
    return int(found[1]) if told.returncode == 0 and found else None


def _scorer(metric: str) -> Any:
    return getattr(import_module(f"pycocoevalcap.{metric}.{metric}"), metric.capitalize())()
