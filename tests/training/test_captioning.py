import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from aaca.data.scenegraph.batch import collate
from aaca.data.scenegraph.vocabulary import SPECIAL, Words
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.decode import greedy
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.files import read_json
from aaca.runtime.launch import launch
from aaca.training.caption_recipe import CaptionRecipe
from aaca.training.captioning import CaptionModule, teach
from aaca.training.fit_captioner import CAPTIONS, SUMMARY, CaptionJob, caption_set, fit_captioner, load_captioner
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec
from tests.toys import Killed, Stop
from tests.training.caption_toys import Broken, Shapes, Wrong, parse, tiny_spec

CPU = TrainerSpec(accelerator="cpu")


def recipe(**changes: object) -> CaptionRecipe:
    values: dict[str, object] = {"epochs": 3, "batch_size": 4, "lr": 3e-3, "length": 12}
    return CaptionRecipe(**{**values, **changes})  # type: ignore[arg-type]


def job(train: Shapes, val: Shapes, dropout: float = 0.0, **changes: object) -> CaptionJob:
    values: dict[str, object] = {
        "train": train,
        "val": val,
        "words": train.words,
        "spec": tiny_spec(train.words, dropout=dropout),
        "recipe": recipe(),
        "trainer": CPU,
        "seed": 3,
        "label": "captioner",
    }
    return CaptionJob(**{**values, **changes})  # type: ignore[arg-type]


def fit(this: CaptionJob, folder: Path, monkeypatch: pytest.MonkeyPatch, stop: Stop | None = None) -> dict:
    if stop is None:
        return fit_captioner(this, folder)
    make = TrainerSpec.make
    with monkeypatch.context() as patch:
        patch.setattr(
            TrainerSpec,
            "make",
            lambda self, label, callbacks=(), **more: make(self, label, callbacks=[*callbacks, stop], **more),
        )
        with pytest.raises(Killed):
            fit_captioner(this, folder)
    return {}


def test_the_loss_is_the_mean_over_all_words_of_a_plain_loop():
    shapes = Shapes(5)
    model = GraphCaptioner(tiny_spec(shapes.words), seed=1).eval()
    losses = []
    for row in range(5):
        alone = collate([shapes.item(row)])
        state = model.start(model.encode(alone))
        for word, target in zip(alone.words[0, :-1], alone.words[0, 1:], strict=True):
            logits, state = model.step(word[None], state)
            losses.append(-math.log(logits[0].double().softmax(0)[target].item()))
    batch = collate([shapes.item(row) for row in range(5)])
    log_probs, attention = teach(model, batch)
    assert len(losses) == int(batch.word_mask.sum()) < batch.word_mask.numel()
    assert (log_probs[~batch.word_mask] == 0).all()
    assert attention.shape == (*batch.word_mask.shape, batch.mask.shape[1])
    module = CaptionModule(model, shapes.words, recipe())
    module.trainer = CPU.make("one")
    assert module.training_step(batch, 0).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_alignment_at_weight_0_changes_no_bit_and_is_measured(tmp_path, monkeypatch):
    train, val = Shapes(8), Shapes(4, seed=1)
    this = job(train, val, dropout=0.3, recipe=recipe(epochs=1, monitor="last"))
    fit(this, tmp_path / "none", monkeypatch)
    plain = load_file(tmp_path / "none" / "model.safetensors")
    for align in ("attention", "leak", "attribution"):
        for weight in (0.0, None):
            changed = replace(
                this,
                recipe=recipe(epochs=1, monitor="last", align=align, align_weight=weight),
                rationale=only_objects(train),
            )
            summary = fit(changed, tmp_path / f"{align}{weight}", monkeypatch)
            mine = load_file(tmp_path / f"{align}{weight}" / "model.safetensors")
            assert all(torch.equal(mine[name], plain[name]) for name in plain) == (weight == 0), align
            assert 0 < summary["metrics"]["loss/align"] < 5


def only_objects(shapes: Shapes) -> dict[int, np.ndarray]:
    return {row: shapes.item(row).nodes.types == 0 for row in range(len(shapes))}


def test_without_a_rationale_all_nodes_are_and_a_wrong_one_is_refused(tmp_path, monkeypatch):
    train = Shapes(8)
    leak = recipe(align="leak", align_weight=1.0, epochs=1)
    assert fit(job(train, train, recipe=leak), tmp_path / "all", monkeypatch)["metrics"]["loss/align"] == 0.0
    with pytest.raises(AacaError, match=r"rationale of training row 5: bool \[1\]; expected bool \[5\]"):
        fit(job(train, train, recipe=leak, rationale={5: np.ones(1, bool)}), tmp_path / "bad", monkeypatch)


def test_attention_is_pulled_to_the_nodes_that_words_name(tmp_path, monkeypatch):
    train = Shapes(8)
    found = {}
    for weight in (0.0, 1.0):
        this = job(
            train,
            train,
            recipe=recipe(epochs=15, batch_size=8, lr=1e-2, align="attention", align_weight=weight, monitor="last"),
        )
        found[weight] = fit(this, tmp_path / str(weight), monkeypatch)["metrics"]["loss/align"]
    assert found[1.0] < 0.5 * found[0.0]


def test_eight_captions_are_learnt_by_heart(tmp_path, monkeypatch):
    train = Shapes(8)
    this = job(train, train, recipe=recipe(epochs=80, batch_size=8, lr=1e-2, clip_grad=5.0), parse=parse)
    summary = fit(this, tmp_path, monkeypatch)
    model = load_captioner(tmp_path, train.words)
    for decode in ("greedy", "beam"):
        frame = caption_set(model, train, CPU, 3, 12, decode, 3, tmp_path / decode)
        assert frame["caption"].tolist() == [train.phrase(row) for row in range(8)]
        assert frame["name"].tolist() == [train.name(row) for row in range(8)]
        assert (frame["log_prob"] <= 0).all()
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / decode / CAPTIONS), frame)
    metrics = summary["metrics"]
    assert metrics["val/bleu4"] == pytest.approx(100, abs=1e-3)
    assert [metrics[f"val/{name}"] for name in ("go", "ga", "gr")] == [0, 0, 0]
    assert metrics["val/cider"] == max(row["val/cider"] for row in summary["curves"])
    assert summary["curves"][0]["val/go"] > 0


def test_the_best_epoch_is_kept_and_its_figures_are_told(tmp_path, monkeypatch):
    train, val = Shapes(16), Wrong(6)
    this = job(train, val, recipe=recipe(epochs=4, monitor="loss"))
    summary = fit(this, tmp_path, monkeypatch)
    losses = [row["val/loss"] for row in summary["curves"]]
    assert len(losses) == 4
    assert summary["epoch"] == int(np.argmin(losses)) < 3
    model = load_captioner(tmp_path).eval()
    batch = collate([val.item(row) for row in range(6)])
    with torch.no_grad():
        log_probs, _ = teach(model, batch)
    assert float(-log_probs.sum() / batch.word_mask.sum()) == pytest.approx(min(losses), rel=1e-4)
    assert read_json(tmp_path / SUMMARY) == summary
    last = fit(replace(this, recipe=replace(this.recipe, monitor="last")), tmp_path / "last", monkeypatch)
    assert last["epoch"] == 3
    assert last["metrics"]["val/loss"] == pytest.approx(losses[-1], rel=1e-6)


HOOKS = [("on_train_batch_start", 2), ("on_train_batch_end", 4), ("on_validation_start", 2), ("on_train_epoch_end", 3)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit_captioner(resumable(), folder)
    return folder


def resumable() -> CaptionJob:
    train, val = Shapes(10), Shapes(4, seed=1)
    plan = recipe(monitor="loss", align="attention", align_weight=0.1)
    return job(train, val, dropout=0.3, recipe=plan, resume=ResumeSpec(every=0))


@pytest.mark.parametrize(("hook", "count"), HOOKS)
def test_an_interrupted_fit_ends_with_the_same_bits(hook, count, tmp_path, monkeypatch, whole):
    fit(resumable(), tmp_path, monkeypatch, Stop(hook, count))
    assert not (tmp_path / SUMMARY).exists()
    fit(resumable(), tmp_path, monkeypatch)
    mine, theirs = load_file(tmp_path / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert read_json(tmp_path / SUMMARY) == read_json(whole / SUMMARY)


def test_a_finished_fit_is_not_trained_again_and_another_is_not_gone_on_with(tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        patch.setattr(TrainerSpec, "make", lambda *_, **__: pytest.fail("trained again"))
        assert fit(resumable(), whole, monkeypatch) == read_json(whole / SUMMARY)
    fit(resumable(), tmp_path, monkeypatch, Stop("on_train_batch_end", 4))
    with pytest.raises(ConfigError, match="other seed"):
        fit(replace(resumable(), seed=4), tmp_path, monkeypatch)


def test_a_loss_that_is_not_finite_names_the_samples(tmp_path, monkeypatch):
    bad = Broken(4, [2])
    with pytest.raises(AacaError, match=r"training loss is nan at epoch 0, batch 0 \(samples .*shapes_2.*\); nothing"):
        fit(job(bad, Shapes(4)), tmp_path, monkeypatch)
    with pytest.raises(AacaError, match=r"validation loss is nan at epoch 0 \(samples shapes_0, shapes_1, shapes_2, "):
        fit(job(Shapes(4), bad), tmp_path, monkeypatch)
    assert not (tmp_path / SUMMARY).exists()


def test_a_saved_captioner_is_read_back_and_other_words_are_refused(whole):
    this = resumable()
    model = load_captioner(whole, this.words)
    batch = collate([this.val.item(0)])
    assert greedy(model.eval(), batch, 11).words == greedy(load_captioner(whole).eval(), batch, 11).words
    with pytest.raises(DataError, match="another vocabulary"):
        load_captioner(whole, Words([*SPECIAL, *reversed(this.words.words[3:])]))
    other = Shapes(2)
    other.words = Words(SPECIAL)
    with pytest.raises(DataError, match="3 words for a captioner of 12"):
        caption_set(model, other, CPU, 2, 12, "greedy", 1, whole / "captions")
    with pytest.raises(DataError, match="the validation set has another vocabulary"):
        replace(this, val=other)
    with pytest.raises(ConfigError, match=r"captioner\.words: 13; expected 12"):
        replace(this, spec=replace(this.spec, words=13))
    with pytest.raises(DataError, match="the validation set has no samples"):
        replace(this, val=Shapes(0))


def test_captions_do_not_depend_on_the_batch_size(tmp_path, whole):
    model, val = load_captioner(whole), Shapes(9, seed=2)
    one = caption_set(model, val, CPU, 2, 12, "beam", 2, tmp_path / "a")
    two = caption_set(model, val, CPU, 64, 12, "beam", 2, tmp_path / "b")
    assert one["caption"].tolist() == two["caption"].tolist()
    np.testing.assert_allclose(one["log_prob"], two["log_prob"], rtol=1e-4)
    short = caption_set(model, val, CPU, 64, 4, "greedy", 1, tmp_path / "c")
    assert max(len(caption.split()) for caption in short["caption"]) <= 3  # 4 with the begin, the end left out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"training\.epochs: 0"),
        ({"batch_size": 0}, r"training\.batch_size: 0"),
        ({"nodes": 0}, r"training\.nodes: 0"),
        ({"width": 0}, r"training\.width: 0"),
        ({"length": 2}, r"training\.length: 2"),
        ({"lr": 0.0}, r"training\.lr: 0\.0"),
        ({"lr": math.nan}, r"training\.lr: nan"),
        ({"weight_decay": -1.0}, r"training\.weight_decay: -1\.0"),
        ({"clip_grad": 0.0}, r"training\.clip_grad: 0\.0"),
        ({"align": "leak", "align_weight": math.inf}, r"training\.align_weight: inf"),
        ({"align_weight": 0.1}, r"training\.align_weight: 0\.1 weighs nothing"),
        ({"monitor": "ciderd"}, r"training\.monitor: no 'ciderd'; nearest valid: cider"),
        ({"decode": "bean"}, r"training\.decode: no 'bean'; nearest valid: beam"),
        ({"align": "leaks"}, r"training\.align: no 'leaks'; nearest valid: leak"),
    ],
)
def test_impossible_recipes_name_their_key(change, message):
    with pytest.raises(ConfigError, match=message):
        CaptionRecipe(**change)


def test_a_recipe_says_what_its_alignment_weighs():
    assert CaptionRecipe().fingerprint()["align_weight"] == 0.0 == CaptionRecipe(align_weight=0.0).weight
    assert CaptionRecipe().fingerprint() == CaptionRecipe(align_weight=0.0).fingerprint()
    aligned = CaptionRecipe(align="leak")
    assert (
        aligned.weight == 0.3 and aligned.fingerprint() == CaptionRecipe(align="leak", align_weight=0.3).fingerprint()
    )
    assert CaptionRecipe(align="leak", align_weight=0.0).fingerprint()["align_weight"] == 0.0


@pytest.mark.slow
def test_two_ranks_train_and_caption_what_one_does(tmp_path):
    results = {}
    for name, world in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        summary = launch("tests.training.caption_tasks:fit_and_caption", {"folder": str(folder)}, world)
        results[name] = (load_file(folder / "model.safetensors"), summary)
    (weights, summary), (weights2, summary2) = results["one"], results["two"]
    for key in weights:
        # Adam divides by the gradient's size, so rounding shows in weights whose gradient is nearly zero
        torch.testing.assert_close(weights2[key], weights[key], rtol=1e-3, atol=5e-4)
    assert len(set(summary2["parameters_sha256"])) == 1
    assert len(summary2["parameters_sha256"]) == 2
    assert summary2["updates"] == summary["updates"] == 12
    assert summary2["epoch"] == summary["epoch"]
    for name, value in summary["metrics"].items():
        assert summary2["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
    assert summary2["captions"]["name"] == summary["captions"]["name"] == [f"shapes_{row}" for row in range(7)]
    assert summary2["captions"]["caption"] == summary["captions"]["caption"]
    np.testing.assert_allclose(summary2["captions"]["log_prob"], summary["captions"]["log_prob"], rtol=1e-3)
