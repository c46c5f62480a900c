import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from fake_runs import make_run, make_runs
from rich.console import Console

from aaca.evaluate.comparison import compare
from aaca.evaluate.figures import FIGURES, svg
from aaca.evaluate.outcome import Outcome
from aaca.evaluate.report import render
from aaca.evaluate.style import DARK
from aaca.evaluate.verdict import price, repair, verdict

HOSTILE = ["<script>alert(1)</script>$x_{$ [bold]", "w" * 300]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    make_runs(root)
    return compare(root).write(root).read_text()


def test_is_one_self_contained_file(report):
    page = Page(report)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    style = re.search(r"<style>(.*?)</style>", report, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]


def test_shows_everything(report):
    page = Page(report)
    text = " ".join(" ".join(page.text).split())
    for words in (
        "f0 (before)",
        "s_similarity",
        "bird on grass",
        "planted bugs",
        "McNemar",
        "aaca debug method=none seed=0",
    ):
        assert words in text
    assert text.count("bird → other") == 3  # captions of the failures, once
    tiles = [a for tag, a in page.tags if tag == "img" and (a["src"] or "").startswith("data:image/webp")]
    assert len(tiles) == 2 * 3 + 2 * (2 * 2)  # failures; debug images of two methods
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    assert len([tag for tag, _ in page.tags if tag == "picture"]) == 3


def test_hostile_names_are_text(tmp_path):
    for method in ("none", "s_random", "s_similarity"):
        make_run(tmp_path, method, 0, classes=HOSTILE, label=f"{method}<b>$", overrides=["a=<i>"])
    comparison = compare(tmp_path)
    page = Page(comparison.write(tmp_path).read_text())
    assert not {"script", "b", "i"} & {tag for tag, _ in page.tags}
    assert HOSTILE[0] in " ".join(page.text) and HOSTILE[1] in " ".join(page.text)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(comparison.table())
    assert "s_random<b>$" in console.export_text()


def test_figures_are_reproducible_and_hold_the_names(tmp_path):
    make_runs(tmp_path, seeds=1)
    setting = compare(tmp_path).settings[0]
    for draw in FIGURES.values():
        assert svg(draw(setting, DARK)) == svg(draw(setting, DARK))
    axes = FIGURES["slices"](setting, DARK).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["none", "s_random", "s_similarity"]
    assert [axis.get_title(loc="left") for axis in axes[:3]] == ["aligned, test", "conflicting, test", "balanced, test"]
    bars = FIGURES["repairs"](setting, DARK).axes[0].patches
    counts = [summary.counts for summary in setting.methods]
    assert [bar.get_width() for bar in bars] == [
        value for count in counts for value in (count["repaired"].mean, -count["newly_broken"].mean)
    ]


def settings(root, methods=("none", "s_random", "s_similarity"), **changes):
    for method in methods:
        for seed in range(2):
            make_run(root, method, seed, **changes.get(method, {}))
    return compare(root).settings[0]


def test_verdict_says_what_beats_random(tmp_path):
    setting = settings(tmp_path)
    before, line = setting.before.metrics, setting.methods[2]
    text = verdict(setting).replace("\u00a0", " ")
    assert f"right on {100 * before['test_aligned'].mean:.1f} % of aligned but only" in text
    assert "s_similarity repairs best: accuracy on conflicting test images goes from" in text
    assert f"goes from {100 * before['accuracy'].mean:.1f} % to {100 * line.metrics['accuracy'].mean:.1f} %" in text
    assert f"+{100 * line.differences['accuracy'].value:.1f} points against s_random" in text
    assert "The control none" in price(setting) and "aligned from" in price(setting)


def test_verdict_when_nothing_beats_random(tmp_path):
    worse = {"s_similarity": {"share": 0.0}}
    text = repair(settings(tmp_path / "a", **worse))
    assert text.startswith("s_random repairs best") and "no selection beats s_random" in text
    # the same predictions under another name: the interval is [0, 0]
    for method in ("s_random", "none"):
        make_run(tmp_path / "b", method, 0)
    folder = make_run(tmp_path / "b", "s_random", 0, label="z_same", key="z")
    outcome = Outcome.load(folder)
    outcome.method = "z_same"
    outcome.save(folder)
    assert "no method beats s_random for certain" in repair(compare(tmp_path / "b").settings[0])


def test_verdict_without_reference_repair_or_debug_set(tmp_path):
    assert "Without s_random" in repair(settings(tmp_path / "a", ("none", "s_similarity")))
    assert "No run added a debug set" in repair(settings(tmp_path / "b", ("none",)))
    low = {method: {"share": -0.5} for method in ("s_random", "s_similarity")}
    assert repair(settings(tmp_path / "c", **low)).startswith("No debug set repairs it")


def test_unreadable_examples_are_named(tmp_path, undrawn):
    folder = make_run(tmp_path, "s_random", 0)
    (folder / "examples" / "failures.png").write_bytes(b"no image")
    comparison = compare(tmp_path)
    text = render(comparison.settings, comparison.notes)
    assert "failures.png" in text and "What f0 gets wrong" not in text


@pytest.mark.parametrize("file", ["debugset.html", "story.html"])
def test_the_pages_of_a_run_are_linked_where_there_are_any(tmp_path, file):
    folder = make_run(tmp_path, "g llm #1", 0, share=0.1)
    comparison = compare(tmp_path)
    link = f'href="{quote(f"{folder.parent.name}/{folder.name}/{file}")}"'
    assert link not in render(comparison.settings, comparison.notes)
    (folder / file).write_text("")
    assert link in render(comparison.settings, comparison.notes)


def test_who_decided_is_said(tmp_path):
    make_run(tmp_path, "aaca", 0, share=0.1, annotator="simulated: oracle")
    make_run(tmp_path, "aaca_people", 0, share=0.1, annotator="ann, ben")
    notes = " ".join(note for setting in compare(tmp_path).settings for note in setting.notes)
    assert (
        "aaca: no person was asked; which concepts confound and which are valid was decided by simulated: oracle"
        in notes
    )
    assert "aaca_people: which concepts confound" in notes and "decided by ann, ben" in notes
