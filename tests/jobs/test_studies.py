"""A study's table: what varied, how many seeds, means of finished runs."""

import json
import shutil

import pytest

from experiments.studies.collect import collect, main


def test_runs_are_grouped_by_what_varied(sweep, tmp_path, capsys):
    shutil.copytree(sweep / "runs", tmp_path / "root" / "runs")
    table = collect(tmp_path / "root").set_index("setting")
    assert (table["seeds"] >= 1).all()
    outcomes = [json.loads(path.read_text()) for path in (tmp_path / "root").glob("runs/*/outcome.json")]
    assert table["seeds"].sum() == len(outcomes)
    for method in {outcome["method"] for outcome in outcomes}:
        own = [100 * outcome["accuracy"] for outcome in outcomes if outcome["method"] == method]
        assert table.loc[f"method={method}", "balanced"] == pytest.approx(sum(own) / len(own), abs=1e-3)
    main(tmp_path / "root", tmp_path / "study")
    assert (tmp_path / "study" / "results.csv").read_text().count("\n") == len(table) + 1
    assert "| method=s_random |" in capsys.readouterr().out


def test_nothing_finished_is_said(tmp_path):
    with pytest.raises(SystemExit, match="no finished run"):
        collect(tmp_path)
