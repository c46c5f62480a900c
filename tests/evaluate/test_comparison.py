import json
import shutil

import numpy as np
import pandas as pd
import pytest
from fake_runs import make_run, make_runs
from rich.console import Console

from aaca.evaluate.comparison import compare
from aaca.evaluate.outcome import PREDICTIONS
from aaca.evaluate.report import render
from aaca.evaluate.statistics import mcnemar, paired_difference, resample_weights
from aaca.runtime.errors import AacaError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_runs(folder)
    return folder


@pytest.fixture(scope="module")
def comparison(root):
    return compare(root)


def correctness(root, method: str) -> pd.DataFrame:
    frames = [pd.read_parquet(path / PREDICTIONS) for path in sorted(root.glob(f"runs/{method}-*"))]
    made = frames[0].assign(right=np.mean([(part["after"] == part["label"]) for part in frames], axis=0))
    return made.assign(all=[tuple(line) for line in np.stack([part["after"] == part["label"] for part in frames], 1)])


def test_rows_and_summary_by_pandas(root, comparison):
    assert len(comparison.rows) == 9 and len(comparison.settings) == 1
    assert [line["method"] for line in comparison.summary] == ["none", "s_random", "s_similarity"]
    for line in comparison.summary:
        made = correctness(root, line["method"])
        own = [row for row in comparison.rows if row["method"] == line["method"]]
        for name in ("aligned", "conflicting", "balanced"):
            assert line[f"test_{name}"] == pytest.approx(made.loc[made["slice"] == name, "right"].mean())
        assert line["accuracy"] == line["test_conflicting"] and line["n_seeds"] == 3
        assert line["accuracy_sd"] == pytest.approx(np.std([row["accuracy"] for row in own], ddof=1))
        worst = [row["worst_group_accuracy"] for row in own]
        assert line["worst_group_accuracy"] == pytest.approx(np.mean(worst))
        assert line["repaired"] == np.mean([row["repaired"] for row in own])


def test_interval_is_the_paired_bootstrap_of_seed_averages(root, comparison):
    line = comparison.summary[2]
    mine, random = correctness(root, "s_similarity"), correctness(root, "s_random")
    for name in ("aligned", "conflicting", "balanced"):
        part = (mine["slice"] == name).to_numpy()
        expected = paired_difference(mine["right"][part], random["right"][part], mine["source"][part])
        found = [line[f"test_{name}_difference{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx([expected.value, expected.low, expected.high], abs=1e-12)
    assert line["accuracy_difference_low"] > 0 and line["reference"] == "s_random"
    part = (mine["slice"] == "conflicting").to_numpy()
    seeds = [np.array(frame["all"][part].tolist()).ravel() for frame in (mine, random)]
    assert line["mcnemar_p"] == pytest.approx(mcnemar(*seeds).p)
    assert comparison.summary[1]["reference"] is None and comparison.summary[1]["mcnemar_p"] is None


def test_worst_group_interval_equals_a_loop(root):
    line = compare(root, resamples=40, seed=9).summary[2]
    frames = {
        method: [pd.read_parquet(path / PREDICTIONS) for path in sorted(root.glob(f"runs/{method}-*"))]
        for method in ("s_similarity", "s_random")
    }
    sources = sorted(frames["s_random"][0]["source"].unique())
    samples = []
    for draw in resample_weights(len(sources), 40, seed=9):
        worst = {}
        for method, parts in frames.items():
            weights = parts[0]["source"].map(dict(zip(sources, draw, strict=True)))
            right = [(part["after"] == part["label"]) * weights for part in parts]
            groups = parts[0]["group"]
            total = weights.groupby(groups).sum()
            worst[method] = np.mean([(part.groupby(groups).sum() / total).min() for part in right])
        samples.append(worst["s_similarity"] - worst["s_random"])
    found = [line["worst_group_accuracy_difference_low"], line["worst_group_accuracy_difference_high"]]
    assert found == pytest.approx(list(np.quantile(samples, [0.025, 0.975])))


def test_f0_is_the_before_of_each_seed_once(root, comparison):
    before = comparison.settings[0].before
    made = pd.concat([pd.read_parquet(path / PREDICTIONS) for path in root.glob("runs/none-*")])
    right = made["before"] == made["label"]
    assert before.seeds == [0, 1, 2]
    assert before.metrics["accuracy"].mean == pytest.approx(right[made["slice"] == "conflicting"].mean())


def test_files_are_written(root, comparison):
    report = comparison.write(root)
    data = json.loads((root / "comparison.json").read_text())
    assert len(data["rows"]) == 9 and data["settings"][0]["before"]["accuracy"] < 0.5
    needed = {"method", "seed", "accuracy", "worst_group_accuracy", "mean_accuracy_train_weighted", "repaired"}
    needed |= {"newly_broken", "n_debug", "seconds", "test_conflicting"}
    assert needed <= data["rows"][0].keys()
    table = pd.read_parquet(root / "comparison.parquet")
    assert len(table) == 9 and table["accuracy"].tolist() == [row["accuracy"] for row in data["rows"]]
    empty = ["peak_memory_mb", "updates"]  # None in every fake run
    text = pd.read_csv(root / "comparison.csv")
    pd.testing.assert_frame_equal(table.drop(columns=empty), text.drop(columns=empty), check_dtype=False)
    assert {path.name for path in (root / "figures").iterdir()} == {
        f"{n}.png" for n in ("slices", "groups", "repairs", "cost")
    }
    assert report == root / "report.html" and not list(root.rglob("*.tmp"))
    assert "NaN" not in (root / "comparison.json").read_text()


def test_table_fits_120_columns_and_shows_the_rule(comparison):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(comparison.table())
    text = console.export_text()
    assert "…" not in text and "s_similarity" in text and "weights evaluated: last" in text
    row = next(line for line in text.splitlines() if "s_similarity" in line)
    accuracy = comparison.summary[2]["accuracy"]
    assert f"{100 * accuracy:.1f}" in row and "[+" in row
    starts = [line.split()[0] for line in text.splitlines() if line.startswith((" f0", " none", " s_"))]
    assert starts == ["f0", "none", "s_random", "s_similarity"]


def test_without_s_random(tmp_path, undrawn):
    make_runs(tmp_path, ("none", "s_similarity"), seeds=2)
    comparison = compare(tmp_path)
    assert "no run of s_random" in comparison.settings[0].notes[0]
    assert all(line["reference"] is None and "accuracy_difference" not in line for line in comparison.summary)
    assert "no run of s_random" in render(comparison.settings, comparison.notes)


def test_single_seed_has_no_spread_but_intervals(tmp_path):
    make_runs(tmp_path, seeds=1)
    comparison = compare(tmp_path)
    line = comparison.summary[2]
    assert line["accuracy_sd"] is None and line["accuracy_difference_low"] is not None
    comparison.write(tmp_path)
    Console(file=open("/dev/null", "w")).print(comparison.table())  # noqa: SIM115, PTH123


def test_seeds_in_common_are_compared(tmp_path):
    make_runs(tmp_path, ("s_random",), seeds=3)
    make_runs(tmp_path, ("s_similarity",), seeds=2)
    make_run(tmp_path, "none", 7)
    comparison = compare(tmp_path)
    notes = " ".join(comparison.settings[0].notes)
    assert "s_similarity: compared with s_random over the 2 seed(s)" in notes
    assert "none: no seed in common with s_random" in notes
    rows = {(row["method"], row["seed"]): row["accuracy"] for row in comparison.rows}
    expected = np.mean([rows["s_similarity", seed] - rows["s_random", seed] for seed in (0, 1)])
    assert comparison.summary[-1]["accuracy_difference"] == pytest.approx(expected)


def test_broken_and_unfinished_runs_are_left_out_by_name(tmp_path):
    make_runs(tmp_path, ("none", "s_random"), seeds=1)
    for name, text in {"cut": '{"schema": 1, "key"', "empty": "", "list": "[]", "old": '{"schema": 0}'}.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "outcome.json").write_text(text)
    (tmp_path / "runs" / "running").mkdir()
    lost = make_run(tmp_path, "s_similarity", 0)
    (lost / PREDICTIONS).write_bytes(b"PAR1 not parquet")
    failed = make_run(tmp_path, "s_similarity", 1, status="failed")
    altered = make_run(tmp_path, "s_similarity", 2, accuracy=0.999)
    comparison = compare(tmp_path)
    notes = "\n".join(comparison.notes)
    assert {row["method"] for row in comparison.rows} == {"none", "s_random"}
    for name in ("cut", "empty", "list", "old", "running", lost.name, failed.name, altered.name):
        assert name in notes
    assert all("\n" not in note for note in comparison.notes)


def test_newest_of_equal_keys_counts(tmp_path):
    make_run(tmp_path, "s_random", 0, key="k", seconds=1.0, finished="2026-01-02T00:00:00")
    make_run(tmp_path, "s_random", 0, key="k", seconds=2.0, finished="2026-01-01T00:00:00")
    assert [row["seconds"] for row in compare(tmp_path).rows] == [1.0]


def test_settings_never_mix(tmp_path, undrawn):
    make_runs(tmp_path, ("none", "s_random"), seeds=1)
    make_run(tmp_path, "s_random", 0, key="other", model="large")
    make_run(tmp_path, "s_random", 0, key="third", overrides=["dataset.p_train=0.5", "method=s_random"])
    comparison = compare(tmp_path)
    assert sorted(len(part.runs) for part in comparison.settings) == [1, 1, 2]
    assert len({part.title for part in comparison.settings}) == 3
    comparison.write(tmp_path)
    assert (tmp_path / "figures" / "3-slices.png").is_file()
    assert "large" in (tmp_path / "report.html").read_text()
    Console(file=open("/dev/null", "w")).print(comparison.table())  # noqa: SIM115, PTH123


def test_variants_of_a_method_are_told_apart(tmp_path):
    for k in (10, 50):
        make_run(
            tmp_path, "s_random", 0, key=f"r{k}", per_class=k, overrides=["method=s_random", f"debugset.per_class={k}"]
        )
        for reduce in ("mean", "min"):
            overrides = ["method=s_similarity", f"selector.reduce={reduce}", "paths.root=/x", "trainer=cpu"]
            make_run(tmp_path, "s_similarity", 0, key=f"{k}{reduce}", per_class=k, overrides=overrides)
    summary = compare(tmp_path).summary
    names = {line["name"]: line["reference"] for line in summary}
    assert names["s_random (K=10)"] is None
    assert names["s_similarity (K=10, selector.reduce=min)"] == "s_random (K=10)"
    assert names["s_similarity (K=50, selector.reduce=mean)"] == "s_random (K=50)"
    assert len(names) == 6


def test_other_test_images_are_not_paired(tmp_path):
    make_run(tmp_path, "s_random", 0)
    folder = make_run(tmp_path, "s_similarity", 0)
    frame = pd.read_parquet(folder / PREDICTIONS)
    frame.assign(id="x" + frame["id"]).to_parquet(folder / PREDICTIONS)
    setting = compare(tmp_path).settings[0]
    assert not setting.methods[1].differences
    assert any("test images differ" in note for note in setting.notes)


def test_images_without_a_source_are_their_own(tmp_path):
    for method in ("s_random", "s_similarity"):
        folder = make_run(tmp_path, method, 0)
        frame = pd.read_parquet(folder / PREDICTIONS)
        frame.assign(source="").to_parquet(folder / PREDICTIONS)
    setting = compare(tmp_path).settings[0]
    assert len(setting.runs[0].cells.sources) == 240
    assert setting.methods[1].differences["accuracy"].low < setting.methods[1].differences["accuracy"].high


def test_nothing_to_compare(tmp_path):
    with pytest.raises(AacaError, match=r"no finished run in .*runs; runs are made by: aaca debug") as caught:
        compare(tmp_path)
    assert "\n" not in str(caught.value)


def test_given_folders(root, tmp_path):
    shutil.copytree(root / "runs", tmp_path / "elsewhere")
    folders = sorted((tmp_path / "elsewhere").iterdir())[:4]
    assert len(compare(folders).rows) == 4
