"""The main job, end to end: one sweep of five methods, its artefacts, its cache, its table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from aaca.data.benchmark import Benchmark
from aaca.data.features import FeatureStore
from aaca.data.table import ImageTable
from aaca.repair.augment import AugmentAndRetrain
from aaca.repair.base import RepairContext, start_classifier
from aaca.training.trainer import TrainerSpec
from tests.toys import METHODS, SMOKE, picture_folder, plain_recipe, square_table, tiny_vit

ROOT = Path(__file__).parents[2]
README_SELECTOR = re.compile(r"```python\n(.*?)```", re.DOTALL)


def outcomes(root: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in root.glob("runs/*/outcome.json")]
    return {outcome["method"]: outcome for outcome in found}


def stages(root: Path, name: str) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"stages/{name}/*/manifest.json"))


def test_a_sweep_makes_shared_stages_once(sweep):
    assert set(outcomes(sweep)) == set(METHODS)
    assert {name: len(stages(sweep, name)) for name in ("benchmark", "f0", "debugset", "refit")} == {
        "benchmark": 1,
        "f0": 1,
        "debugset": 4,  # every method but none
        "refit": 5,
    }
    assert not list(sweep.glob("stages/*/.*.work"))


def test_every_method_takes_the_same_number_of_updates_and_its_images(sweep):
    found = outcomes(sweep)
    assert len({outcome["updates"] for outcome in found.values()}) == 1
    expected = {"none": 0, "duplicate": 40, "s_random": 40, "s_similarity": 40, "s_active_learning": 40}
    assert {name: outcome["n_debug"] for name, outcome in found.items()} == expected
    for outcome in found.values():
        assert outcome["seconds"] > 0
        assert outcome["seconds_total"] > outcome["seconds"]
        assert outcome["before"] == found["none"]["before"]


def test_debug_sets_come_from_where_they_should_and_never_from_test(sweep):
    for name, outcome in outcomes(sweep).items():
        file = next(sweep.glob(f"runs/*method={name},*/debugset.parquet"), None)
        assert (file is None) == (outcome["n_debug"] == 0)
        if file is not None:
            debug = pd.read_parquet(file)
            assert set(debug["split"]) == {"train" if name == "duplicate" else "pool"}
            assert debug.groupby("label").size().tolist() == [10] * 4


def test_selections_follow_their_rule_recomputed_by_hand(sweep):
    """Entropy and distance are recomputed with loops from the stored features."""
    benchmark = Benchmark.load(stages(sweep, "benchmark")[0])
    stores = {len(store.logits): store for store in map(FeatureStore, stages(sweep, "features"))}
    pool, audit = benchmark.split("pool"), benchmark.split("audit")
    features, audit_features = stores[len(pool)], stores[len(audit)]
    exponents = np.exp(features.logits - features.logits.max(1, keepdims=True))
    p = exponents / exponents.sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1)
    wrong = audit_features.logits.argmax(1) != audit.labels
    for label in range(4):
        mean = np.mean([audit_features.embeddings[i] for i in np.flatnonzero(wrong & (audit.labels == label))], axis=0)
        distance = ((features.embeddings - mean) ** 2).sum(1)
        rows = np.flatnonzero(pool.labels == label)
        for method, key in (("s_active_learning", -entropy), ("s_similarity", distance)):
            debug = pd.read_parquet(next(sweep.glob(f"runs/*method={method},*/debugset.parquet")))
            expected = set(pool.ids[rows[np.argsort(key[rows])[:10]]])
            assert set(debug.loc[debug["label"] == label, "origin_id"]) == expected


def test_numbers_follow_from_the_predictions(sweep):
    for name, outcome in outcomes(sweep).items():
        frame = pd.read_parquet(next(sweep.glob(f"runs/*method={name},*/predictions.parquet")))
        test = frame[frame["split"] == "test"]
        balanced = test[test["slice"] == "balanced"]
        assert outcome["accuracy"] == pytest.approx((balanced["after"] == balanced["label"]).mean())
        groups = (test["after"] == test["label"]).groupby(test["group"]).mean()
        assert outcome["worst_group_accuracy"] == pytest.approx(groups.min())
        was, now = test["before"] == test["label"], test["after"] == test["label"]
        assert (outcome["repaired"], outcome["newly_broken"]) == ((~was & now).sum(), (was & ~now).sum())


def test_the_comparison_has_the_promised_names(sweep):
    comparison = json.loads((sweep / "comparison.json").read_text())
    assert {row["method"] for row in comparison["rows"]} == set(METHODS)
    promised = {"method", "seed", "accuracy", "worst_group_accuracy", "mean_accuracy_train_weighted", "repaired"}
    promised |= {"newly_broken", "n_debug", "seconds"}
    for row in comparison["rows"]:
        assert promised <= set(row)
    assert len(comparison["summary"]) == len(METHODS)
    assert len(pd.read_parquet(sweep / "comparison.parquet")) == len(pd.read_csv(sweep / "comparison.csv")) == 5
    report = (sweep / "report.html").read_text()
    for method in METHODS:
        assert method in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "https://" not in report


def test_running_again_reuses_everything_and_changing_k_only_what_depends_on_it(sweep, run):
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("stages/*/*/manifest.json")}
    status, said = run("debug", "method=s_random", *SMOKE, f"paths.root={sweep}")
    assert status == 0
    assert "finished before" in said
    assert "stage" not in said
    (outcome,) = sweep.glob("runs/*method=s_random,*/outcome.json")
    numbers = outcome.read_text()
    outcome.unlink()
    status, said = run("debug", "method=s_random", *SMOKE, f"paths.root={sweep}")
    assert status == 0
    assert "made in" in said
    assert json.loads(outcome.read_text())["groups"] == json.loads(numbers)["groups"]
    assert "  …" not in said
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("stages/*/*/manifest.json")} == before
    status, said = run("debug", "method=s_random", "debugset.per_class=5", *SMOKE, f"paths.root={sweep}")
    assert status == 0
    new = {path.parent.parent.name for path in sweep.glob("stages/*/*/manifest.json") if path not in before}
    assert new == {"debugset", "refit", "features"}
    assert len(stages(sweep, "f0")) == 1


def test_from_f0_starts_where_f0_ended_and_from_pretrained_where_f0_started(tmp_path):
    """With next to no learning rate the refit returns its start weights: f0's, or the untrained ones."""
    train = square_table(tmp_path / "data", 16)
    frames = [square_table(tmp_path / "data", 16, split, seed).frame for seed, split in enumerate(("audit", "test"), 1)]
    table = ImageTable.build(pd.concat([train.frame, *frames]), train.classes, tmp_path / "data")
    recipe = plain_recipe(lr=1e-30, min_lr=0.0)
    f0 = start_classifier(tiny_vit(), 2, recipe, seed=99)
    f0.save(tmp_path / "f0.safetensors")
    start = start_classifier(tiny_vit(), 2, recipe, seed=0)
    for init, expected in (("f0", f0), ("pretrained", start)):
        (tmp_path / init).mkdir()
        context = RepairContext(
            benchmark=Benchmark("squares", table),
            debug=None,
            f0_weights=tmp_path / "f0.safetensors",
            model=tiny_vit(),
            recipe=recipe,
            trainer=TrainerSpec(accelerator="cpu"),
            rule="last",
            epoch_size=16,
            seed=0,
        )
        AugmentAndRetrain(init).apply(context, tmp_path / init)
        weights = load_file(tmp_path / init / "model.safetensors")
        for name, value in expected.state_dict().items():
            np.testing.assert_allclose(weights[name], value.numpy(), rtol=0, atol=1e-20)


def test_k_larger_than_the_pool_is_refused_before_training(tmp_path, run):
    status, said = run("debug", *SMOKE, "debugset.per_class=1000", f"paths.root={tmp_path}")
    assert status == 1
    assert "debugset.per_class: 1000 images a class, but no class of the pool has more than 40" in said
    assert not stages(tmp_path, "f0")


def test_a_classifier_without_failures_still_gets_its_debug_set(tmp_path, run):
    """Two trivially separable classes: no failure anywhere; the similarity rule falls back, and says so."""
    root = picture_folder(tmp_path / "pictures")
    arguments = (
        "dataset=imagefolder",
        f"dataset.root={root}",
        "size=smoke",
        "trainer=cpu",
        "model.image_size=32",
        "recipe.batch_size=8",
        "recipe.epochs=12",
        "debugset.per_class=3",
        "method=s_similarity",
        f"paths.root={tmp_path / 'out'}",
    )
    status, said = run("debug", *arguments)
    assert status == 0, said
    outcome = outcomes(tmp_path / "out")["s_similarity"]
    assert outcome["n_debug"] == 6
    assert "f0 fails on 0 of" in said
    assert "failure" in said.split("f0 fails on 0 of")[1]  # the fallback of the similarity rule is said


def test_a_key_in_the_environment_reaches_no_file_of_a_run_on_wandb(tmp_path, run, monkeypatch):
    key = "f4ke" * 10
    monkeypatch.setenv("WANDB_API_KEY", key)
    status, said = run(
        "debug", "method=s_random", *SMOKE, "logger=wandb", "logger.mode=offline", f"paths.root={tmp_path}"
    )
    assert status == 0, said
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 3  # f0, refit, outcome
    status, said = run("debug", *SMOKE, f"+logger.api_key={key}", f"paths.root={tmp_path}")
    assert status == 1
    assert "logger.api_key: a secret does not belong on a command line" in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [path for path in files if key.encode() in path.read_bytes()] == []
    assert [path for path in tmp_path.rglob("*") if key in path.name and any(path.iterdir())] == []


def test_a_plugin_from_outside_is_found_and_its_source_is_part_of_the_key(tmp_path):
    """The README's selector, beside the user, through the console command."""
    source = README_SELECTOR.search((ROOT / "README.md").read_text())
    assert source is not None
    root = f"paths.root={tmp_path / 'out'}"
    arguments = ["method=custom", "method.name=confident", "selector._target_=my_lab.Confident", *SMOKE, root]
    environment = {**os.environ, "AACA_PLUGINS": "my_lab", "PYTHONPATH": str(tmp_path)}
    command = [str(Path(sys.executable).with_name("aaca")), "debug", *arguments]
    for text in (source.group(1), source.group(1) + "# changed\n"):
        (tmp_path / "my_lab.py").write_text(text)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=200)
        assert done.returncode == 0, done.stderr
    assert len(stages(tmp_path / "out", "debugset")) == 2
    assert len(stages(tmp_path / "out", "f0")) == 1
