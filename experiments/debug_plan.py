"""`aaca debug … --dry-run`: what a run would ask for, before any image is drawn or any network trained."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from aaca.runtime.config import load_config
from aaca.runtime.ranks import current
from aaca.runtime.trial import Trial

from .debug_checks import check_feasible
from .debug_config import DebugConfig


def show_plan(trial: Trial) -> None:
    """Print the table of prompts with the number of images of each, and the sum. Writes nothing but cached answers."""
    if current().rank != 0:
        return
    with suppress(OSError):
        trial.path.rmdir()  # Hydra has made it; it is not ours if anything is in it
    options = load_config(trial.config, DebugConfig)
    check_feasible(options)
    config = options.debugset
    if config.candidates != "generated":
        print(f"{options.method.name}: nothing is generated; {_source(config.candidates, config.per_class)}")
        return
    parts = options.generation()
    if options.discovers:
        print(f"{options.method.name}: what is asked for depends on what this run finds out about f0: {parts.prompts}")
        print(f"{config.asked} images a class are drawn; filters and selector leave at most {config.per_class}")
        return
    classes = options.dataset.class_names()
    if classes is None:
        with TemporaryDirectory(prefix="aaca-plan-") as scratch:
            classes = options.dataset.build(Path(scratch)).classes
    parts.generator.check(classes)
    prompts = parts.prompts.write(classes, Path(options.paths.root).absolute() / "llm")
    counts: Counter[tuple[int, str, str]] = Counter()
    for label, name in enumerate(classes):
        for text, prompt, _ in parts.generator.shares(prompts, label, name, config.asked):
            counts[label, text, prompt.negative] += 1
    table = Table("class", "prompt", "not", "images", title=f"{options.method.name}: prompts")
    for (label, prompt, negative), number in counts.items():
        table.add_row(classes[label], prompt, negative, str(number))
    Console(width=120).print(table)
    total = sum(counts.values())
    print(f"{total} images are drawn ({config.asked} a class), of which filters and selector leave at most")
    print(f"{config.per_class * len(classes)} ({config.per_class} a class); nothing was drawn or trained (--dry-run)")


def _source(candidates: str, per_class: int) -> str:
    if candidates == "none":
        return "the debug set is empty"
    return f"{per_class} images a class are picked from {candidates}"
