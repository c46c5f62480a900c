"""The result in words, made from the numbers alone."""

from aaca.evaluate.setting import REFERENCE, Setting
from aaca.evaluate.summary import Summary
from aaca.evaluate.terminal import percent, points

_PRICE = {"test_aligned": "aligned", "test_conflicting": "conflicting", "worst_group_accuracy": "worst-group"}
NO_IMAGES = {"none", "duplicate"}
"""Controls that add no new image."""


def images_of(setting: Setting) -> str:
    """The images that `accuracy` is about, in words."""
    headline = setting.key["headline_slice"]
    return "test images" if headline == "all" else f"{headline} test images"


def failure(setting: Setting) -> str:
    """What f0 gets wrong: aligned against conflicting where the test has both, else all against the worst group."""
    metrics = setting.before.metrics
    aligned, conflicting = metrics.get("test_aligned"), metrics.get("test_conflicting")
    if aligned and conflicting:
        word = "but only" if conflicting.mean < aligned.mean - 0.05 else "and"
        return (
            f"f0 is right on {percent(aligned.mean)} % of aligned {word} "
            f"{percent(conflicting.mean)} % of conflicting test images."
        )
    worst = min(setting.before.groups, key=lambda name: setting.before.groups[name])
    return (
        f"f0 is right on {percent(metrics['accuracy'].mean)} % of {images_of(setting)}, "
        f"on {percent(setting.before.groups[worst])} % in its worst group ({worst})."
    )


def repair(setting: Setting) -> str:
    """Which debug set repairs best, and whether it beats images chosen at random."""
    candidates = [summary for summary in setting.methods if summary.method not in NO_IMAGES]
    if not candidates:
        return "No run added a debug set, so there is no repair to judge."
    best = max(candidates, key=lambda summary: (summary.metrics["accuracy"].mean, summary.name))
    before, after = setting.before.metrics["accuracy"].mean, best.metrics["accuracy"].mean
    if after > before:
        text = f"{best.name} repairs best: accuracy on {images_of(setting)} goes from {percent(before)} % to "
        text += f"{percent(after)} %"
    else:
        text = f"No debug set repairs it: the best, {best.name}, reaches {percent(after)} % of {images_of(setting)} "
        text += f"where f0 has {percent(before)} %"
    return text + _against_random(best, candidates)


def _against_random(best: Summary, candidates: list[Summary]) -> str:
    others = [summary for summary in candidates if summary.method != REFERENCE]
    if best.method == REFERENCE:
        return f"; no selection beats {REFERENCE}." if others else "; no other debug set was run."
    change = best.differences.get("accuracy")
    if change is None:
        return f". Without {REFERENCE} at the same budget, nothing tells choosing well from merely adding images."
    interval = f"{points(change.low)} to {points(change.high)}"
    if change.low > 0:
        return f", {points(change.value)} points against {REFERENCE} (95 % interval {interval})."
    return (
        f"; but no method beats {REFERENCE} for certain: the lead of {points(change.value)} points "
        f"has a 95 % interval of {interval}, which includes 0."
    )


def price(setting: Setting) -> str:
    """What else moved: aligned images, the worst group, and what training as long without new images gives."""
    candidates = [summary for summary in setting.methods if summary.method not in NO_IMAGES]
    parts = []
    if candidates:
        best = max(candidates, key=lambda summary: (summary.metrics["accuracy"].mean, summary.name))
        for metric, words in _PRICE.items():
            old, new = setting.before.metrics.get(metric), best.metrics.get(metric)
            if old and new:
                parts.append(f"{words} from {percent(old.mean)} % to {percent(new.mean)} %")
        if parts:
            parts = [f"With {best.name}, other accuracies move: {', '.join(parts)}."]
    for summary in setting.methods:
        if summary.method == "none":
            value = percent(summary.metrics["accuracy"].mean)
            parts.append(f"The control {summary.name} (as many updates, no new image) is at {value} %.")
    return " ".join(parts)


def verdict(setting: Setting) -> str:
    """The failure and the repair, in two sentences."""
    return f"{failure(setting)} {repair(setting)}"
