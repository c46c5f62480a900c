"""The console command: `aaca <job> [overrides]`. Without a job it lists what there is, in well under a second."""

import importlib
import sys
from pathlib import Path

from aaca import __version__
from aaca.runtime.errors import nearest

JOBS = {
    "debug": ("find failures, build a debug set, repair, test", "aaca debug method=s_similarity seed=0"),
    "annotate": ("people say what misleads the model: a page on this machine", "aaca annotate"),
    "compare": ("one table and one report over any set of runs", "aaca compare paths.root=outputs"),
    "features": ("embed a dataset's images for autoencoders", "aaca features dataset=stampscenes"),
    "sae": ("a sparse autoencoder on image vectors: concepts without names", "aaca sae sae=topk sae.model.k=8"),
    "name": ("names for an autoencoder's concepts, and whether they are right", "aaca name sae.repeats=3"),
    "bottleneck": ("a sparse linear classifier on named concepts", "aaca bottleneck probe=nec"),
    "explain": ("what a concept bottleneck looks at: tables, figures, a page", "aaca explain"),
    "intervene": ("switch concepts off, see the groups", "aaca intervene 'intervene.names=[sand,grass,ball]'"),
    "inspect": ("which neurons a classifier's mistakes hang on", "aaca inspect inspect.classes=all"),
    "illusion": ("what neurons would like to see, with the eyes of a class", "aaca illusion"),
    "edit": ("the head edited so that neurons stop mattering", "aaca edit repair.choose=inspection"),
    "caption": (
        "captions that follow a scene graph: train, score, explain, filter, regraph, yours",
        "aaca caption score",
    ),
    "asg": ("scene graphs in a folder: validate, count, draw", "aaca asg validate folder=regionfiles"),
    "intrinsic": ("albedo and shading of images, with Concept Distillation and without", "aaca intrinsic repeats=3"),
    "pretrain": ("train the models that ship with aaca (embedded world)", "aaca pretrain model=clip"),
    "data": (
        "verify a dataset's files, or preview its splits",
        "aaca data verify dataset=imagefolder dataset.root=my/images",
    ),
}
ACTIONS = {"annotate": "action", "asg": "action", "caption": "action", "data": "action", "pretrain": "network"}
"""Jobs that take a bare word, and the key it stands for: `aaca data verify`."""

VALUED = frozenset(
    ("-c", "--cfg", "-i", "--info", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd")
) | {"--config-dir", "--experimental-rerun"}
"""Hydra's options whose value is the argument after them."""

ALIASES = {"pretrain": {"model": "network"}}
"""Words for a key that Hydra would take for the choice of a config group of another job."""


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `aaca` command; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    job, rest = arguments[0], arguments[1:]
    if job not in JOBS:
        print(f"error: no job {job!r}; {nearest(job, JOBS)}", file=sys.stderr)
        return 1
    at = _first_word(rest) if job in ACTIONS else None
    if at is not None:
        rest[at] = f"{ACTIONS[job]}={rest[at]}"
    rest = ["dry_run=true" if item == "--dry-run" else item for item in rest]
    rest = [_quoted(item) for item in rest]
    for alias, key in ALIASES.get(job, {}).items():
        rest = [f"{key}={item.removeprefix(f'{alias}=')}" if item.startswith(f"{alias}=") else item for item in rest]
    sys.argv = [f"aaca {job}", *rest]
    return int(importlib.import_module(f"aaca.experiments.{job}").main())


def _first_word(arguments: list[str]) -> int | None:
    """Where the first argument is that is neither an option, nor the value of one, nor an override."""
    for i, item in enumerate(arguments):
        if "=" not in item and item[:1] not in "-+~" and (i == 0 or arguments[i - 1] not in VALUED):
            return i
    return None


def _quoted(item: str) -> str:
    """`key=path` with the path in quotes where it exists and Hydra would stumble over it (run folders hold = and ,)."""
    key, _, value = item.partition("=")
    stumbles = any(sign in value for sign in "=,") and "'" not in value and value[:1] not in '"[{'
    if not stumbles or item.startswith("-"):
        return item
    try:
        there = Path(value).exists()
    except OSError:  # longer than any name may be
        return item
    return f"{key}='{value}'" if there else item


def overview() -> str:
    """The text of bare `aaca`: jobs, methods, and one example each."""
    lines = [f"aaca {__version__}: why an image classifier fails, its repair, and the proof", "", "jobs"]
    for name, (meaning, example) in JOBS.items():
        lines += [f"  {name:<10}{meaning}", f"  {'':<10}  {example}"]
    lines += ["", "methods (aaca debug method=…; several with -m method=a,b seed=0,1,2)"]
    for name, meaning in options("method").items():
        lines.append(f"  {name:<19}{meaning}")
    lines += ["", "`aaca <job> --help` lists the config groups; `aaca <job> --cfg job` shows the whole config."]
    return "\n".join(lines)


def options(group: str) -> dict[str, str]:
    """The options of a config group: file name → its first comment line."""
    folder = Path(importlib.import_module("aaca.conf").__path__[0]) / group
    found = {}
    for file in sorted(folder.glob("*.yaml")):
        comments = [
            line
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.startswith("# ") and "@package" not in line
        ]
        found[file.stem] = comments[0].removeprefix("# ") if comments else ""
    return found
