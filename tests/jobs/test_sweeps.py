"""Sweeps of two ranks: every launcher and sweeper runs the trials asked for, and all ranks run the same one."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.jobs.sweeping import BIN, FAULTS, aaca, ranks_left, runs
from tests.toys import SMOKE

TWO = (*(item for item in SMOKE if not item.startswith("trainer")), "trainer=ddp_cpu")


def assert_two_equal_ranks(run: Path, root: Path) -> dict:
    """Equal config, dataset and parameters on both ranks; the trial's outcome."""
    noted = json.loads((run / "run.json").read_text())
    assert [rank["rank"] for rank in noted["ranks"]] == [0, 1]
    assert len({rank["pid"] for rank in noted["ranks"]}) == 2
    for name in ("config", "dataset", "code"):
        assert {rank[name] for rank in noted["ranks"]} == {noted[name]}
    assert not (run / "failed.json").exists()
    return dict(json.loads((run / "outcome.json").read_text()))


def assert_equal_parameters(root: Path) -> None:
    fits = [json.loads(path.read_text()) for path in root.glob("stages/*/*/fit.json")]
    assert fits
    for fit in fits:
        assert len(fit["parameters_sha256"]) == fit["devices"] == 2
        assert len(set(fit["parameters_sha256"])) == 1


@pytest.mark.slow
def test_the_basic_sweeper_runs_each_trial_on_two_equal_ranks_in_one_folder(tmp_path):
    done = aaca("debug", "-m", "method=none,s_random", *TWO, f"paths.root={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [assert_two_equal_ranks(run, tmp_path)["method"] for run in runs(tmp_path)] == ["none", "s_random"]
    assert_equal_parameters(tmp_path)
    assert ranks_left() == []


@pytest.mark.slow
def test_the_optuna_sweeper_samples_once_a_trial_not_once_a_rank(tmp_path):
    """Unseeded: with ranks that ran the command again, each would draw its own learning rate."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs aaca[optuna]")
    search = ("hydra/sweeper=best", "hydra.sweeper.n_trials=2", "recipe.lr=interval(0.001,0.01)")
    done = aaca("debug", "-m", "method=none", *search, *TWO, f"paths.root={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {run.name: assert_two_equal_ranks(run, tmp_path) for run in runs(tmp_path)}
    assert len(found) == 2
    assert_equal_parameters(tmp_path)
    best = (tmp_path / "runs" / "optimization_results.yaml").read_text()
    top = max(outcome["worst_group_accuracy"] for outcome in found.values())
    assert f"best_value: {top}" in best
    assert ranks_left() == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_run_the_same_trees_and_tell_of_failures(launcher, tmp_path):
    """Trials in processes of the launcher; one fails there, and the command that started the sweep knows."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher", reason="needs aaca[launchers]")
    (tmp_path / "faults.json").write_text('{"1": "defect"}')
    plan = ("debug", "-m", "method=none", "seed=0,1", f"hydra/launcher={launcher}", *TWO, f"paths.root={tmp_path}")
    done = aaca(
        *plan,
        "repair._target_=tests.jobs.sweeping.Faulty",
        cwd=tmp_path,
        AACA_PLUGINS="tests",
        PYTHONPATH=str(Path(__file__).parents[2]),
        **{FAULTS: str(tmp_path / "faults.json")},
    )
    assert done.returncode == 1, done.stderr
    assert "1 trial(s) failed" in done.stderr
    bad, good = sorted(runs(tmp_path), key=lambda run: (run / "outcome.json").exists())
    assert_two_equal_ranks(good, tmp_path)
    failed = json.loads((bad / "failed.json").read_text())
    assert "ZeroDivisionError: planted" in failed["reason"]
    assert "sweeping.py" in (bad / "traceback.txt").read_text()
    assert ranks_left() == []


def slurm(rank: int) -> dict[str, str]:
    numbers = {"JOB_ID": 4321, "STEP_ID": 0, "NTASKS": 2, "PROCID": rank, "LOCALID": rank, "NNODES": 1}
    return {"SLURM_NODELIST": "127.0.0.1", **{f"SLURM_{name}": str(value) for name, value in numbers.items()}}


@pytest.mark.slow
def test_torchrun_brings_its_own_ranks(tmp_path):
    arguments = ["debug", "-m", "method=none", "seed=0,1", *TWO, f"paths.root={tmp_path / 'torchrun'}"]
    command = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "--no-python", str(BIN / "aaca")]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for run in runs(tmp_path / "torchrun"):
        assert_two_equal_ranks(run, tmp_path / "torchrun")
    assert len(runs(tmp_path / "torchrun")) == 2
    assert_equal_parameters(tmp_path / "torchrun")


@pytest.mark.slow
def test_srun_brings_its_own_ranks(tmp_path):
    single = ("debug", "method=none", *TWO, f"paths.root={tmp_path / 'srun'}")
    with ThreadPoolExecutor() as pool:
        tasks = [pool.submit(aaca, *single, cwd=tmp_path, **slurm(rank)) for rank in (0, 1)]
    assert [task.result().returncode for task in tasks] == [0, 0], tasks[0].result().stderr
    (run,) = runs(tmp_path / "srun")
    assert_two_equal_ranks(run, tmp_path / "srun")
    assert_equal_parameters(tmp_path / "srun")


def test_ranks_of_torchrun_that_were_told_different_things_stop_with_both(tmp_path):
    """What a sampling sweeper does below torchrun: here each rank adds its own seed."""
    script = tmp_path / "each.sh"
    rest = " ".join([*TWO, f"paths.root={tmp_path / 'out'}"])
    script.write_text(f"#!/bin/sh\nexec {BIN / 'aaca'} debug method=none seed=$RANK {rest}\n")
    script.chmod(0o755)
    command = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "--no-python", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "ranks disagree about the config (rank 0: " in done.stderr
    assert ", rank 1: " in done.stderr
    assert not (tmp_path / "out" / "stages").exists()


def test_several_nodes_need_a_launcher(tmp_path):
    done = aaca("debug", *TWO, "trainer.nodes=2", f"paths.root={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert "trainer.nodes: 2 nodes need a launcher" in done.stderr


@pytest.mark.slow
def test_two_sweeps_at_once_share_one_cache(tmp_path):
    plans = (("method=none,s_random",), ("method=s_random,duplicate",))
    with ThreadPoolExecutor() as pool:
        tasks = [
            pool.submit(aaca, "debug", "-m", *plan, *SMOKE, f"paths.root={tmp_path}", cwd=tmp_path) for plan in plans
        ]
    assert [task.result().returncode for task in tasks] == [0, 0], tasks[0].result().stderr
    assert len(list(tmp_path.glob("runs/*/outcome.json"))) == 3
    said = "".join(task.result().stderr for task in tasks)
    made = [line for line in said.splitlines() if "stage f0" in line and "  made in" in line]
    assert len(made) == 1, said
    assert len(list(tmp_path.glob("stages/f0/*/manifest.json"))) == 1
    assert not list(tmp_path.glob("stages/*/.*.work"))
