"""Twelve trials, three of which fail: nine results, three named failures, and a rerun that completes the three."""

import json
from pathlib import Path

import pytest

from tests.jobs.sweeping import FAULTS, ranks_left, runs
from tests.toys import SMOKE

SEEDS = "seed=" + ",".join(map(str, range(12)))
SWEEP = ("debug", "-m", "method=s_random", SEEDS, "repair._target_=tests.jobs.sweeping.Faulty", *SMOKE)
REASONS = {
    "nan": "loss is nan at epoch 0",
    "memory": "out of memory (RuntimeError",
    "defect": "ZeroDivisionError: planted",
    "kill": "rank 0 of 1 was ended by SIGKILL",
}


@pytest.fixture
def sweep_with(run, monkeypatch):
    """sweep_with(faults, folder, overrides…) → (exit status, what was said)."""

    def call(faults: dict[int, str], root: Path, *more: str) -> tuple[int, str]:
        root.mkdir(exist_ok=True)
        (root / "faults.json").write_text(json.dumps(faults))
        monkeypatch.setenv("AACA_PLUGINS", "tests")
        monkeypatch.setenv(FAULTS, str(root / "faults.json"))
        return run(*SWEEP, *more, f"paths.root={root}")

    return call


def check(sweep_with, run, faults: dict[int, str], root: Path, *more: str) -> None:
    status, said = sweep_with(faults, root, *more)
    assert status == 1, said
    assert "3 trial(s) failed; the same command runs only what is missing" in said
    assert len(runs(root)) == 12
    finished = {path: path.stat().st_mtime_ns for path in root.glob("runs/*/outcome.json")}
    assert len(finished) == 9
    failed = {file["seed"]: file["reason"] for file in map(read, root.glob("runs/*/failed.json"))}
    assert sorted(failed) == sorted(faults)
    for seed, fault in faults.items():
        assert REASONS[fault] in failed[seed]
        assert f"seed={seed} " in said.partition("trial(s) failed")[2]
    assert run("compare", f"paths.root={root}")[0] == 0
    comparison = json.loads((root / "comparison.json").read_text())
    assert sorted(row["seed"] for row in comparison["rows"]) == sorted(set(range(12)) - set(faults))
    assert {entry["seed"]: entry["reason"] for entry in comparison["failed"]} == failed
    (summary,) = comparison["summary"]
    assert len(summary["seeds"]) == 9
    report = (root / "report.html").read_text()
    assert "3 trials failed" in report
    assert all(f"seed={seed}" in report for seed in faults)

    status, said = sweep_with({}, root, *more)
    assert status == 0, said
    assert said.count("finished before") == 9
    assert len(list(root.glob("runs/*/outcome.json"))) == 12
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not list(root.glob("runs/*/failed.json"))
    assert not list(root.glob("runs/*/traceback.txt"))
    assert ranks_left() == []


def read(path: Path) -> dict:
    return dict(json.loads(path.read_text()))


def test_three_faults_in_one_process(tmp_path, sweep_with, run):
    check(sweep_with, run, {2: "nan", 5: "memory", 9: "defect"}, tmp_path / "root")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_faults_one_of_which_kills_the_process(tmp_path, sweep_with, run):
    check(sweep_with, run, {2: "nan", 5: "memory", 9: "kill"}, tmp_path / "root", "trainer.isolate=true")


def test_a_trial_that_the_system_kills_ends_alone(tmp_path, sweep_with):
    status, said = sweep_with({1: "kill"}, tmp_path, "seed=0,1", "trainer.isolate=true")
    assert status == 1
    assert "rank 0 of 1 was ended by SIGKILL (the system's out-of-memory killer does that)" in said
    assert len(list(tmp_path.glob("runs/*/outcome.json"))) == 1
    assert ranks_left() == []


def test_optuna_never_takes_a_failed_trial_for_the_best(tmp_path, sweep_with):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs aaca[optuna]")
    search = ("hydra/sweeper=best", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0")
    status, said = sweep_with({0: "nan"}, tmp_path, *search, "hydra.sweeper.n_trials=4", "seed=choice(0,1)")
    assert status == 1, said
    assert "1 trial(s) failed" in said
    assert {len(list(tmp_path.glob(f"runs/*/{name}"))) for name in ("outcome.json", "failed.json")} == {1}
    results = (tmp_path / "runs" / "optimization_results.yaml").read_text()
    assert "seed: 1" in results
