"""A study's table: what varied, how many seeds, means of finished runs."""

import json
import shutil

import pytest

from experiments.studies.collect import collect, main
from experiments.studies.digits_table import table
from tests.toys import METHODS


def test_runs_are_grouped_by_what_varied(sweep, tmp_path, capsys):
    found = {file.parent: json.loads(file.read_text()) for file in (sweep / "runs").glob("*/outcome.json")}
    fewest = min(len(outcome["overrides"]) for outcome in found.values())  # other tests may have left runs of their own
    accuracies = {}
    for folder, outcome in found.items():
        if len(outcome["overrides"]) == fewest:
            accuracies[outcome["method"]] = 100 * outcome["accuracy"]
            for seed in (0, 1):
                shutil.copytree(folder, tmp_path / "root" / "runs" / f"{outcome['method']}, seed {seed}")
    # the second seed is 10 points better
    for file in (tmp_path / "root").glob("runs/*seed 1/outcome.json"):
        outcome = json.loads(file.read_text())
        file.write_text(json.dumps({**outcome, "seed": 1, "accuracy": outcome["accuracy"] + 0.1}))
    table = collect(tmp_path / "root").set_index("setting")
    assert set(table.index) == {f"method={method}" for method in METHODS} and (table["seeds"] == 2).all()
    for method, accuracy in accuracies.items():
        assert table.loc[f"method={method}", "balanced"] == pytest.approx(accuracy + 5, abs=1e-3)
        assert table.loc[f"method={method}", "balanced_sd"] == pytest.approx(10 / 2**0.5, abs=1e-3)
    main(tmp_path / "root", tmp_path / "study")
    assert (tmp_path / "study" / "results.csv").read_text().count("\n") == len(table) + 1
    assert "| method=s_random |" in capsys.readouterr().out


def test_nothing_finished_is_said(tmp_path):
    with pytest.raises(SystemExit, match="no finished run"):
        collect(tmp_path)


def test_the_digits_table_has_f0_once_a_seed_and_its_numbers_are_those_of_the_runs(sweep, tmp_path):
    found = {file.parent: json.loads(file.read_text()) for file in (sweep / "runs").glob("*/outcome.json")}
    folder, outcome = next((folder, one) for folder, one in found.items() if one["method"] == "none")
    for seed, method in ((0, "none"), (1, "none"), (0, "erm")):
        copy = tmp_path / "runs" / f"{method} {seed}"
        shutil.copytree(folder, copy)
        (copy / "outcome.json").write_text(json.dumps({**outcome, "seed": seed, "method": method, "overrides": []}))
    concept = {"abs_cos": 0.5, "tcav": [0.0] * 10}
    report = {"before": [{**concept, "tcav": [float(row == column) for column in range(10)]} for row in range(10)]}
    (tmp_path / "runs" / "erm 0" / "repair.json").write_text(json.dumps({**report, "after": [concept] * 10}))
    found = table(tmp_path).set_index("method")
    assert found["seeds"].to_dict() == {"none": 2, "erm": 1, "f0": 2}
    assert found.loc["none", "swapped"] == pytest.approx(
        100 * outcome["slices"]["test/conflicting"]["accuracy"], abs=1e-3
    )
    before = outcome["before"]["accuracy"]
    assert found.loc["f0", "random"] == pytest.approx(100 * before, abs=0.1)
    assert (found.loc["erm", "tcav_before"], found.loc["erm", "tcav_after"]) == (1.0, 0.0)
    assert 0 <= found.loc["none", "entropy"] <= 1.3863 + 1e-3  # four classes


def test_an_empty_folder_has_no_digits_table(tmp_path):
    with pytest.raises(SystemExit, match="no finished run"):
        table(tmp_path)
