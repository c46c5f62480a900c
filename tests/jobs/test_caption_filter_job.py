"""The job `caption` with action=filter: wrong annotations of train or of test."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from aaca.data.shape_grammar import write_shapes
from aaca.evaluate.captions.scores import caption_table
from aaca.runtime.files import read_json
from experiments.caption_intervals import differences
from tests.jobs.caption_runs import (
    FEW,
    FIGURES,
    SHAPES,
    graphs_stage,
    held_against_truth,
    made,
    ran,
    records,
)

PARTS = ["all", "filtered", "random", "without the planted"]


def recounted(folder: Path, root: Path) -> tuple[pd.DataFrame, set[str]]:
    """The same of a filter of train, and the sizes of what was trained on."""
    ease, planted = held_against_truth(folder, graphs_stage(root, planted=True), "trn")
    dropped = set(ease["name"][~ease["kept"]])
    rows = pd.read_csv(folder / "filter.csv")
    kept = len(ease) - len(dropped)
    assert rows["trained on"].tolist() == PARTS
    assert rows["captions"].tolist() == [len(ease), kept, kept, len(ease) - len(planted)]
    seen, epochs = rows["captions"] * rows["epochs"], rows["epochs"][0]
    assert (abs(seen - epochs * len(ease)) <= rows["captions"] / 2).all()  # all are trained as long
    return ease, planted


def test_the_filter_by_records_counts_as_a_recount_does(run, tmp_path):
    folder, said = ran(run, tmp_path, "filter", *SHAPES, *FEW, "filter.rule=released", "filter.threshold=0.8")
    assert made(said).count("captioner") == 4
    ease, planted = recounted(folder, tmp_path)
    assert len(planted) == round(0.3 * len(ease))
    # the released rule by hand: the mean rating over 5, of each caption's words
    answers = pd.read_csv(graphs_stage(tmp_path, planted=True) / "annotation" / "trn_records.csv")
    answers["image"] = answers["file"].str.extract(r"p1_(.*)__caption", expand=False)
    by_hand = answers.groupby(["image", "region"])["relevance"].mean() / 5
    short = ease["name"].str.split("/").str[-1].str.rsplit("_", n=1)
    values = [by_hand[image, int(region)] for image, region in short]
    assert ease["ease"].to_numpy() == pytest.approx(values)
    assert (ease["kept"] == (ease["ease"] >= 0.8)).all() and 0 < ease["kept"].sum() < len(ease)
    assert read_json(folder / "filter.json")["records"]["answers"] == len(answers)
    assert "intervals over images" in said
    rows = pd.read_csv(folder / "filter.csv").set_index("trained on")
    sure = pd.read_csv(folder / "filter_differences.csv")
    assert list(sure.groupby("difference", sort=False).groups) == ["filtered - random", "filtered - all"]
    assert sure["figure"].tolist() == 2 * list(FIGURES) and (sure["low"] <= sure["high"]).all()
    for one in sure.itertuples():
        first, second = one.difference.split(" - ")
        assert one.value == pytest.approx(rows.loc[first, one.figure] - rows.loc[second, one.figure], abs=1e-9)


def test_differences_are_those_of_two_captioners_over_images():
    said = {f"{image}_{region}": f"a{image} b{image} c{image} d{image}" for image in range(30) for region in range(4)}
    references = {name: [text] for name, text in said.items()}
    good = caption_table(said, references)
    bad = caption_table({**said, **dict.fromkeys(list(said)[:40], "none")}, references)  # of the first ten images
    run = SimpleNamespace(options=SimpleNamespace(seed=0))
    sure = differences(run, {"good - bad": (good, bad), "bad - bad": (bad, bad)})
    assert sure["difference"].tolist() == ["good - bad", "bad - bad"] and sure["figure"].tolist() == ["CIDEr-D"] * 2
    own, none = sure.iloc[0], sure.iloc[1]
    assert own["value"] == pytest.approx(100 * (good["cider"].mean() - bad["cider"].mean())) and own["value"] > 0
    # 10 of 30 images fall: the share has a standard deviation of √(1/3 · 2/3 / 30) over images
    sd = 3 * own["value"] * np.sqrt(2 / 9 / 30)
    assert own["high"] - own["low"] == pytest.approx(2 * 1.96 * sd, rel=0.1)
    assert (none["value"], none["low"], none["high"]) == (0, 0, 0)


@pytest.mark.parametrize(
    "by", ["swap", pytest.param("choice", marks=pytest.mark.slow), pytest.param("hold", marks=pytest.mark.slow)]
)
def test_the_captioner_rates_its_own_words(by, run, tmp_path):
    folder, said = ran(run, tmp_path, "filter", *SHAPES, *FEW, f"filter.by={by}", "filter.keep=0.5")
    assert "ratings trn" in made(said)
    ease, _ = recounted(folder, tmp_path)
    assert ease["kept"].sum() == round(0.5 * len(ease))
    assert ease["ease"][ease["kept"]].min() >= ease["ease"][~ease["kept"]].max()
    (ratings,) = tmp_path.glob("stages/ratings/*/records.csv")
    ratings_of = pd.read_csv(ratings)["relevance"]
    assert ratings_of.between(1, 5).all() and ratings_of.nunique() > 5


def test_records_of_yours_take_the_place_of_simulated_ones_and_belong_to_the_run(run, tmp_path):
    arguments = [*SHAPES, *FEW, "filter.noise=0", "filter.rule=released", f"filter.records={tmp_path / 'mine.csv'}"]
    write_shapes(tmp_path / "shapes", {"trn": 7, "val": 2, "tst": 2}, 4)
    names = [name.rpartition("_") for name in records(tmp_path / "shapes", "trn")]
    lines = ["file,region,content_type,content,relevance"]
    for row, (image, _, region) in enumerate(names):
        rating = 1 if row % 3 == 0 else 5
        lines.append(f"p1_{image.split('/')[1]}__caption_1_attr_result.jpg,{region},object,circle,{rating}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    folder, _ = ran(run, tmp_path, "filter", *arguments)
    ease = pd.read_csv(folder / "ease.csv").set_index("name")["kept"]
    assert [bool(ease["_".join((image, region))]) for image, _, region in names] == [
        row % 3 > 0 for row in range(len(names))
    ]
    assert pd.read_csv(folder / "filter.csv")["trained on"].tolist() == PARTS[:3]
    assert read_json(folder / "filter.json") == {
        "records": {"images": 7, "answers": len(names), "unfinished": 0, "unrated": 0, "blank": 0, "unreadable": 0},
        "captions_unrated": 0,
    }
    before = read_json(folder / "run.json")["dataset"]
    (tmp_path / "mine.csv").write_text("\n".join(lines[:-2]))
    folder, _ = ran(run, tmp_path, "filter", *arguments)
    assert read_json(folder / "run.json")["dataset"] != before
    assert read_json(folder / "filter.json")["captions_unrated"] == 2


def test_a_filter_that_keeps_nothing_says_so_and_noise_in_all_leaves_nothing_clean(run, tmp_path):
    few = (*SHAPES, *FEW, f"paths.root={tmp_path}")
    status, said = run("caption", "filter", *few, "filter.keep=0")
    assert status == 1 and "error: filter.keep: 0.0 leaves none of " in said and "Traceback" not in said
    folder, _ = ran(run, tmp_path, "filter", *SHAPES, *FEW, "filter.noise=1", "filter.keep=0.5")
    assert pd.read_csv(folder / "filter.csv")["trained on"].tolist() == PARTS[:3]
    assert read_json(folder / "filter.json")["precision"] == 1
