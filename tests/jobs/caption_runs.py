"""The job `caption` at toy size: what its tests run, and what they read of it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aaca.data.graph_writer import cleaned_file
from aaca.data.scenegraph.files import read_graphs
from aaca.evaluate.captions.scores import caption_table
from aaca.evaluate.captions.structure import grammar_parser
from aaca.evaluate.dashboard import Files
from aaca.runtime.files import read_json
from aaca.world.phrases import Grammar
from tests.jobs.conftest import Run, command

TINY = ("hyper=embedded", "trainer=cpu", "training.epochs=2", "training.lr=3e-3", "captioner.hidden=32")
SHAPES = (*TINY, "graphs=shapes", "graphs.images={trn:30,val:6,tst:10}")
FEW = ("graphs.images={trn:7,val:2,tst:2}", "graphs.regions=4")
SCENES = (
    *TINY,
    "graphs=stampscenes",
    "graphs.images={trn:16,val:1,tst:1}",
    "training.epochs=12",
    "feature_dtype=float32",
)

FIGURES = {
    "CIDEr-D": "cider",
    "structure": "structure",
    "Go": "g_objects",
    "Ga": "g_attributes",
    "Gr": "g_relationships",
}


def scored(folder: Path, *arguments: str) -> Path:
    """`folder`, after a captioner was trained and scored there: what other runs go on from."""
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, folder, ["caption", "score", *arguments, f"paths.root={folder}"]) == 0
    return folder


def ran(run: Run, root: Path, action: str, *arguments: object) -> tuple[Path, str]:
    """The run's folder and all that was printed."""
    before = {file: file.stat().st_mtime_ns for file in root.glob("caption/*/run.json")}
    status, said = run("caption", action, *map(str, arguments), f"paths.root={root}")
    assert status == 0, said
    (file,) = [file for file in root.glob("caption/*/run.json") if file.stat().st_mtime_ns != before.get(file)]
    return file.parent, said


def refused(run: Run, *arguments: object) -> str:
    """The one line that says why a job ends."""
    status, said = run("caption", *map(str, arguments), "paths.root=refused")
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 1 and len(lines) == 1 and "Traceback" not in said, said
    return str(lines[0].removeprefix("error: "))


def made(said: str) -> list[str]:
    """Stages that were made, not found."""
    return re.findall(r"stage (\S+(?: \S+)?) +[0-9a-f]{8}  made in", said)


def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, Any, Any]]:
    """What dashboards are given from now on, by stage: numbers, tables, pictures."""
    found: dict[str, tuple[Any, Any, Any]] = {}
    monkeypatch.setattr(Files, "record", lambda self, stage, *parts: found.update({stage: parts}))
    return found


def graphs_stage(root: Path, holds: str = "about.json", planted: bool = False) -> Path:
    """The folder of laid out graphs that has noise planted in it, or that has not."""
    found = [path.parent for path in root.glob(f"stages/graphs/*/{holds}")]
    (stage,) = [path for path in found if any((path / "annotation").glob("*_planted.json")) == planted]
    return stage


def references(stage: Path, name: str = "tst") -> dict[str, str]:
    cleaned = read_json(stage / cleaned_file(name))
    return {f"{image}_{region}": one["phrase"] for image, of in cleaned.items() for region, one in of.items()}


def records(stage: Path, name: str = "tst") -> dict[str, Any]:
    """Region records by name."""
    found = {}
    for image, region in np.load(stage / "annotation" / "regionfiles" / f"{name}_names.npy").tolist():
        found[f"{image}_{region}"] = read_json(stage / "annotation" / "regionfiles" / f"{image}.json")[region]
    return found


def captions_of(folder: Path) -> dict[str, str]:
    frame = pd.read_csv(folder / "captions.csv", keep_default_na=False)
    return dict(zip(frame["name"], frame["caption"], strict=True))


def held_against_truth(folder: Path, stage: Path, name: str) -> tuple[pd.DataFrame, set[str]]:
    """`ease.csv` and the planted names of a filter's run on this set, `filter.json` held against them."""
    ease = pd.read_csv(folder / "ease.csv")
    truth = read_json(stage / "annotation" / f"{name}_planted.json")
    planted = {f"{image}_{region}" for image, of in truth.items() for region in of}
    dropped = set(ease["name"][~ease["kept"]])
    found = read_json(folder / "filter.json")
    assert found["dropped"] == len(dropped) and set(ease["name"]) == set(records(stage, name))
    assert found["precision"] == (len(dropped & planted) / len(dropped) if dropped else None)
    assert found["recall"] == pytest.approx(len(dropped & planted) / len(planted))
    return ease, planted


def tables_of(root: Path, stage: Path) -> list[pd.DataFrame]:
    """A table of each set of captions of tst that was made, by its CIDEr-D."""
    wanted = {name: [text] for name, text in references(stage).items()}
    regions = stage / "annotation" / "regionfiles"
    graphs = {
        f"{image}_{region}": graph
        for image in {name.rpartition("_")[0] for name in wanted}
        for region, graph in read_graphs(regions / f"{image}.json").items()
    }
    parse = grammar_parser(Grammar.from_json(read_json(stage / "about.json")["grammar"]))
    frames = [pd.read_parquet(file) for file in root.glob("stages/captions/*/captions.parquet")]
    said = [dict(zip(frame["name"], frame["caption"], strict=True)) for frame in frames]
    return [caption_table(one, wanted, graphs, None, parse) for one in said]
