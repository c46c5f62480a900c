"""`rationale.foreign`: captioners trained and scored on graphs that also hold what nobody asked for."""

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module

from aaca.data.scenegraph.batch import collate
from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.captions.scores import score_captions
from aaca.runtime.config import load_config, plain
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import read_json
from aaca.runtime.stages import StageCache
from experiments.caption_config import CaptionConfig
from experiments.caption_part import Part
from experiments.caption_rationale import leaks
from experiments.caption_run import without_presets
from experiments.caption_stages import CaptionStages
from tests.graph_toys import FOLDERS, write_tree
from tests.jobs.caption_runs import scored
from tests.jobs.conftest import Run

TINY = ("hyper=embedded", "trainer=cpu", "training.epochs=2", "training.lr=3e-3", "captioner.hidden=32")
SHAPES = (*TINY, "graphs=shapes", "graphs.images={trn:12,val:3,tst:6}")
LEAK = ("training.align=leak", "training.align_weight=0.5")
FOREIGN = ("rationale.foreign=1", "rationale.test=true")


def options_of(*overrides: str) -> CaptionConfig:
    with initialize_config_module("aaca.conf", version_base="1.3"):
        config = compose("caption", overrides=["paths.root=x", *overrides])
    return load_config(without_presets(plain(config)), CaptionConfig)


def stages_of(root: Path, *overrides: str) -> CaptionStages:
    return CaptionStages(options_of(*SHAPES, *overrides), StageCache(root))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A captioner trained and scored by the job."""
    return scored(tmp_path_factory.mktemp("root"), *SHAPES, *LEAK, *FOREIGN)


def annotated_ids(root: Path, name: str) -> set[int]:
    """Ids of the objects that the laid out files name for a sample."""
    image, region = name.rsplit("_", 1)
    (file,) = root.glob(f"stages/graphs/*/annotation/regionfiles/{image}.json")
    return {thing["object_id"] for thing in read_json(file)[region]["objects"]}


def leaks_by_hand(root: Path, united: PackedGraphs, model: torch.nn.Module) -> dict[str, float]:
    """One graph and one word at a time."""
    attended, even, attributed = [], [], []
    for row in range(len(united)):
        item, known = united.item(row), annotated_ids(root, united.name(row))
        foreign = np.array([kind != "relationship" and owner not in known for kind, owner, _ in item.nodes.owners])
        if not foreign.any():
            continue
        batch = collate([item])
        batch.features.requires_grad_()
        state, log_prob = model.start(model.encode(batch)), 0.0
        for word, target in zip(batch.words[0, :-1], batch.words[0, 1:], strict=True):
            logits, state = model.step(word[None], state)
            attended.append(state.attention[0, foreign].sum().item())
            even.append(foreign.mean())
            log_prob = log_prob + logits[0].log_softmax(0)[target]
        (slope,) = torch.autograd.grad(log_prob, batch.features)
        shares = (slope * batch.features.detach()).sum(2)[0].abs().numpy()
        attributed.append(shares[foreign].sum() / shares.sum())
    values = {"leak": attended, "leak_by_chance": even, "attribution_leak": attributed}
    return {name: 100 * float(np.mean(one)) for name, one in values.items()}


def test_the_job_says_what_lies_on_foreign_objects_and_scores_against_the_graphs_as_annotated(root):
    (file,) = root.glob("caption/*/scores.json")
    found = read_json(file)
    stages = stages_of(root, *LEAK, *FOREIGN)
    clean, united = stages.packed("tst")[1], stages.packed("tst", 1)[1]
    fitted, model = stages.captioner()
    assert all(stage.reused for stage in stages.cache.history)
    model.eval()
    for name, value in leaks_by_hand(root, united, model).items():
        assert found[name] == pytest.approx(value, rel=1e-4) and 0 < value < 100, name
    objects = [len(united.graph(row).objects) - len(clean.graph(row).objects) for row in range(len(clean))]
    assert set(objects) == {0, 1} and found["foreign_graphs"] == 100 * np.mean(objects)
    names = [clean.name(row) for row in range(len(clean))]
    assert names == [united.name(row) for row in range(len(united))]
    frame = stages.captions(fitted, model, "tst", united, f"foreign objects, {stages.packed('tst', 1)[0]}")
    assert stages.cache.history[-1].reused
    said = dict(zip(frame["name"], frame["caption"], strict=True))
    table = pd.read_csv(file.parent / "captions.csv").set_index("name")["caption"]
    assert any(table[name] != said[name] for name in names)
    graphs = {name: clean.graph(row) for row, name in enumerate(names)}
    again = score_captions(said, clean.references(), graphs, None, stages.parse())
    assert {f"foreign_{key}" for key in again} <= set(found)
    for key, value in again.items():
        assert found[f"foreign_{key}"] == (None if value != value else pytest.approx(value)), key


def test_leaks_do_not_hang_on_the_batches(root):
    stages = stages_of(root, *LEAK, *FOREIGN)
    united, model = stages.packed("tst", 1)[1], stages.captioner()[1]
    rows = [2, 5, 7, 11, 30]
    one, all_ = (leaks(model, united, rows, size) for size in (1, 8))
    assert one == pytest.approx(all_, rel=1e-4)


def test_at_weight_0_training_is_that_of_the_control_and_at_more_it_is_not(tmp_path):
    control = ("rationale.foreign=1", "training.epochs=1", "training.monitor=last")
    fits = {}
    for align, weight in (("none", 0), ("leak", 0), ("attribution", 0), ("leak", 0.5), ("attribution", 0.5)):
        fitted, _ = stages_of(
            tmp_path, *control, f"training.align={align}", f"training.align_weight={weight}"
        ).captioner()
        fits[align, weight] = read_json(fitted.folder / "fit.json")
    weights = {key: fit["parameters_sha256"] for key, fit in fits.items()}
    assert weights["none", 0] == weights["leak", 0] == weights["attribution", 0]
    assert len({tuple(one) for one in weights.values()}) == 3
    assert all(0 < fits[align, 0]["metrics"]["loss/align"] < 1 for align in ("leak", "attribution"))


def test_a_part_of_train_is_trained_on_with_its_foreign_objects_and_val_has_none(tmp_path):
    stages = stages_of(tmp_path, *LEAK, "rationale.foreign=1", "training.epochs=1")
    clean = stages.packed("trn")[1]
    fitted, _ = stages.captioner(Part(clean, list(range(20, 40))), {"samples": "some"})
    summary = read_json(fitted.folder / "fit.json")
    assert summary["samples"] == 20 and summary["metrics"]["loss/align"] > 0
    packed = [read_json(file)["inputs"] for file in tmp_path.glob("stages/packed/*/manifest.json")]
    assert sorted((one["set"], one.get("foreign", 0)) for one in packed) == [("trn", 0), ("trn", 1), ("val", 0)]


def test_foreign_objects_are_part_of_the_captioners_key_and_the_plain_set_is_found_again(tmp_path):
    plain_, foreign, more = (stages_of(tmp_path, f"rationale.foreign={count}") for count in range(3))
    keys = {stages.packed("trn", stages.options.rationale.foreign)[0] for stages in (plain_, foreign, more)}
    assert len(keys) == 3 and foreign.packed("trn")[0] == plain_.packed("trn")[0]
    seeded = stages_of(tmp_path, "rationale.foreign=1", "seed=1")
    assert seeded.packed("trn")[0] == plain_.packed("trn")[0] and seeded.packed("trn", 1)[0] not in keys


def test_a_stage_is_made_or_found_once_however_often_it_is_asked_for(tmp_path, caplog):
    stages = stages_of(tmp_path)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            stages.graphs()
            stages.packed("val")
    told = [record.getMessage() for record in caplog.records if "made in" in record.getMessage()]
    assert [line.split()[1] for line in told] == ["graphs", "packed"]


@pytest.mark.parametrize("kind", FOLDERS)
def test_released_layouts_are_united_too(kind, run: Run, tmp_path):
    write_tree(tmp_path, kind, images=4)
    graphs = {"visual_genome": "vg"}.get(kind, kind)
    files = {file: file.read_bytes() for file in (tmp_path / FOLDERS[kind]).rglob("*") if file.is_file()}
    where = [f"graphs={graphs}", f"graphs.root={tmp_path / FOLDERS[kind]}", f"paths.root={tmp_path / 'runs'}"]
    status, said = run("caption", "score", *TINY, *where, *LEAK, "rationale.foreign=2", "rationale.test=true")
    assert status == 0, said
    (file,) = (tmp_path / "runs").glob("caption/*/scores.json")
    found = read_json(file)
    assert 0 < found["leak"] < 100 and 0 < found["foreign_graphs"] <= 100 and "foreign_cider" in found
    assert {file: file.read_bytes() for file in files} == files


def test_a_set_that_takes_no_foreign_object_is_refused(tmp_path):
    stages = stages_of(tmp_path, "rationale.foreign=1", "training.nodes=1")
    message = "rationale.foreign: 1, but no graph of trn takes a foreign object"
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        stages.captioner()
    assert "\n" not in str(raised.value) and not list(tmp_path.glob("stages/captioner/*"))
    assert not list(tmp_path.glob("stages/packed/*/manifest.json"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.align=leak"], "training.align: leak holds nothing against nodes that are all rationale; expected"),
        (["training.align=attribution"], "training.align: attribution holds nothing against"),
        (["rationale.test=true"], "rationale.test: no foreign object is asked for"),
        ([*FOREIGN, f"captions={__file__}"], "rationale.test: captions= are given"),
        (["rationale.foreign=-1"], "rationale.foreign: "),
    ],
)
def test_what_does_not_fit_is_named(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        options_of(*SHAPES, *overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("align", ["none", "attention"])
def test_the_control_may_have_foreign_objects(align):
    assert options_of(*SHAPES, *FOREIGN, f"training.align={align}").rationale.foreign == 1
