"""METEOR, SPICE and CLIPScore: what they lack, and what they are where nothing is lacking."""

import json

import numpy as np
import pytest
import torch

from aaca.evaluate.captions import external
from aaca.runtime.errors import AacaError, ConfigError


def test_what_an_external_metric_lacks_is_said(monkeypatch, tmp_path):
    captions, references = {"a": "x"}, {"a": ["x"]}
    monkeypatch.setattr(external, "_package", lambda: None)
    assert all("pip install 'aaca[captions]'" in external.missing(metric) for metric in ("meteor", "spice"))
    with pytest.raises(AacaError, match="pycocoevalcap"):
        external.java_score("meteor", captions, references)
    monkeypatch.setattr(external, "_package", lambda: tmp_path)
    monkeypatch.setattr(external, "_java_version", lambda: None)
    assert "needs Java" in external.missing("meteor")
    monkeypatch.setattr(external, "_java_version", lambda: 17)
    assert "meteor-1.5.jar" in external.missing("meteor") and "CoreNLP" in external.missing("spice")
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (tmp_path / "spice" / "lib" / name).touch()
    assert external.missing("spice") == "spice: needs Java 8 or older; `java` on the PATH is 17"
    with pytest.raises(ConfigError, match=r"'metoer'.*meteor"):
        external.missing("metoer")


def test_java_that_dies_is_named(monkeypatch):
    class Dead:
        def compute_score(self, references, captions):
            return float(""), []

    monkeypatch.setattr(external, "missing", lambda metric: None)
    monkeypatch.setattr(external, "_scorer", lambda metric: Dead())
    with pytest.raises(AacaError, match="meteor: its Java program failed"):
        external.java_score("meteor", {"a": "x"}, {"a": ["x"]})


@pytest.mark.parametrize(("told", "version"), [("1.8.0_402", 8), ("17.0.15", 17), ("21", 21)])
def test_java_versions(monkeypatch, tmp_path, told, version):
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{told}\" 2025' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert external._java_version() == version
    java.unlink()
    assert external._java_version() is None


def test_clip_score_names_the_file_it_lacks(tmp_path):
    with pytest.raises(AacaError, match=r"config\.json is not there"):
        external.clip_score({"a": "x"}, lambda name: np.zeros((4, 4, 3), np.uint8), tmp_path)


@pytest.mark.slow
def test_clip_score_is_the_mean_cosine(tmp_path):
    transformers = pytest.importorskip("transformers")
    clip = pytest.importorskip("torchmetrics.multimodal.clip_score")

    sides = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)  # transformers draws its initial weights from the global stream only
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**sides, "vocab_size": 30, "max_position_embeddings": 8, "eos_token_id": 1, "bos_token_id": 0},
            vision_config={**sides, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
    )
    letters = ["<|startoftext|>", "<|endoftext|>", *(c + "</w>" for c in "abcdefgh"), *"abcdefgh"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(letters)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    shapes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor = transformers.CLIPProcessor(transformers.CLIPImageProcessor(**shapes), tokenizer)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for name in "pqr"}
    captions = {"p": "a b c", "q": "h", "r": "a a a a g f d b c a a b"}  # the last is cut

    class Old:  # torchmetrics 1.9 expects the features themselves, as transformers 4 gave them
        config = model.config

        def to(self, device):
            return self

        def __getattr__(self, name):
            return lambda *args, **kwargs: getattr(model.eval(), name)(*args, **kwargs).pooler_output

    metric = clip.CLIPScore(lambda: (Old(), processor))
    cut = {**captions, "r": "a a a a g f"}  # torchmetrics cuts the end token off too; eight places with both marks
    for name, caption in cut.items():
        metric.update(torch.from_numpy(images[name].transpose(2, 0, 1).copy()), caption)
    expected = metric.compute().item()
    assert expected > 0
    got = external.clip_score(captions, images.__getitem__, tmp_path, batch=2)
    assert got == pytest.approx(expected, abs=1e-3)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AacaError, match=r"lacks text_model\.encoder\.layers\.1"):
        external.clip_score(captions, images.__getitem__, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AacaError, match="does not load as a CLIP model"):
        external.clip_score(captions, images.__getitem__, tmp_path)
