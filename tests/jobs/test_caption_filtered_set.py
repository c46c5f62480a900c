"""The job `caption` with filter.set=test: a captioner on the easy part of its test set, and that part as files."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.evaluate.captions.cider import CiderIndex, cider
from aaca.runtime.files import read_json
from tests.graph_toys import FOLDERS, write_tree
from tests.jobs.caption_runs import (
    FEW,
    FIGURES,
    SHAPES,
    TINY,
    captions_of,
    graphs_stage,
    held_against_truth,
    made,
    ran,
    references,
    shown,
    tables_of,
)


def test_one_clean_captioner_is_scored_on_what_is_kept_of_a_noisy_test_set(run, tmp_path, monkeypatch):
    dashboards = shown(monkeypatch)
    learnt = ["captioner=rgcn", "training.batch_size=8", "training.epochs=6", "graphs.images={trn:16,val:2,tst:10}"]
    arguments = [*SHAPES, *learnt, "filter.set=test", "filter.keep=0.6"]
    folder, said = ran(run, tmp_path, "filter", *arguments)
    noisy = graphs_stage(tmp_path, planted=True)
    assert made(said).count("captioner") == 1 and "36 of 60 captions of tst kept" in said
    ease, planted = held_against_truth(folder, noisy, "tst")
    assert len(planted) == 18 and not list(tmp_path.glob("stages/graphs/*/annotation/trn_planted.json"))
    kept = ease["name"][ease["kept"]].tolist()
    (table,) = tables_of(tmp_path, noisy)
    found = pd.read_csv(folder / "filter_effect.csv").set_index("figure")
    assert list(found.index) == list(FIGURES)
    for figure, key in FIGURES.items():
        row, scale = found.loc[figure], 1 if key.startswith("g_") else 100
        assert row["all"] == pytest.approx(scale * table[key].mean())
        assert row["kept"] == pytest.approx(scale * table.loc[kept, key].mean())
        assert row["gain_value"] == pytest.approx(row["kept"] - row["all"], abs=1e-9)
        assert row["random_low"] <= row["all"] <= row["random_high"] and 0 < row["p"] <= 1
    numbers, tables, _ = dashboards["caption filter test"]
    assert numbers == pytest.approx(
        {f"{figure} {part}": found.loc[figure, part] for figure in found.index for part in ("all", "kept")}
    )
    assert len(tables["filter effect"]) == len(found) and "cut-outs" not in said  # shapes have none
    # document frequencies are those of the whole noisy set, not of what is kept
    wanted = {name: [text] for name, text in references(noisy).items()}
    some, captions = ({name: of[name] for name in kept} for of in (wanted, table["caption"]))
    assert found.loc["CIDEr-D", "kept"] == pytest.approx(100 * cider(captions, some, CiderIndex.fit(wanted)))
    assert found.loc["CIDEr-D", "kept"] != pytest.approx(100 * cider(captions, some))
    # what is kept, copied beside the rest, is a set like any other
    shutil.copytree(noisy, tmp_path / "copy")
    shutil.copytree(folder / "tst_opt", tmp_path / "copy", dirs_exist_ok=True)
    layout = replace(Layout.ega(tmp_path / "copy"), sets=("tst", "tst_opt"))
    whole, part = GraphSet.open(layout, "tst"), GraphSet.open(layout, "tst_opt")
    rows = {whole.name(row): row for row in range(len(whole))}
    assert {part.name(row) for row in range(len(part))} == set(kept)
    for row in range(len(part)):
        here, there = part.item(row), whole.item(rows[part.name(row)])
        np.testing.assert_array_equal(here.features, there.features)
        np.testing.assert_array_equal(here.image, there.image)
    _, said = ran(run, tmp_path, "filter", *arguments)
    assert made(said) == []


def test_the_captioner_s_own_ratings_of_test_are_those_of_the_clean_one(run, tmp_path):
    folder, said = ran(run, tmp_path, "filter", *SHAPES, *FEW, "filter.set=test", "filter.by=swap", "filter.keep=0.5")
    assert made(said).count("captioner") == 1 and "ratings tst" in made(said)
    ease, _ = held_against_truth(folder, graphs_stage(tmp_path, planted=True), "tst")
    assert ease["kept"].sum() == round(0.5 * len(ease))
    _, said = ran(run, tmp_path, "score", *SHAPES, *FEW)
    assert "captioner" not in made(said)


def test_records_of_val_sub_make_val_sub_opt_of_it(run, tmp_path):
    write_tree(tmp_path, "ega", images=6)
    root = tmp_path / FOLDERS["ega"]
    for file in root.rglob("*val_sub_opt*"):  # the tree's own
        file.unlink()
    pairs = np.load(root / "annotation/regionfiles/val_sub_names.npy").tolist()
    lines = ["file,region,content_type,content,relevance"]
    for row, (image, region) in enumerate(pairs):
        rating = 1 if row % 3 == 0 else 5
        lines.append(f"p1_{Path(image).name}__caption_1_attr_result.jpg,{region},object,dog,{rating}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    kept = {f"{image}_{region}" for row, (image, region) in enumerate(pairs) if row % 3}
    common = [*TINY, "training.epochs=8", "graphs=ega", f"graphs.root={root}"]
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    rated = ["filter.set=test", "filter.noise=0", f"filter.records={tmp_path / 'mine.csv'}", "filter.rule=released"]
    folder, said = ran(run, tmp_path, "filter", *common, *rated)
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before  # the data are as they were
    assert f"copied into {root} it is graphs.test=val_sub_opt" in said and "precision" not in said
    assert read_json(folder / "filter.json")["captions_unrated"] == 0
    effect = pd.read_csv(folder / "filter_effect.csv").set_index("figure")
    assert list(effect.index) == ["CIDEr-D"] and effect.loc["CIDEr-D", "kept"] > 0  # no grammar is known
    shutil.copytree(folder / "val_sub_opt", root, dirs_exist_ok=True)
    folder, said = ran(run, tmp_path, "score", *common, "graphs.test=val_sub_opt", "reference_index=val_sub")
    assert "captioner" not in made(said) and set(captions_of(folder)) == kept
    assert read_json(folder / "scores.json")["cider"] == pytest.approx(effect.loc["CIDEr-D", "kept"])
