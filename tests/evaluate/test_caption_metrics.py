import json
from math import exp, log

import numpy as np
import pytest
import torch

from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.evaluate.captions import external
from aaca.evaluate.captions.bleu import bleu
from aaca.evaluate.captions.cider import CiderIndex, cider
from aaca.evaluate.captions.diversity import div_n, diversity, self_cider
from aaca.evaluate.captions.intervals import difference, filter_effect
from aaca.evaluate.captions.rouge import rouge_l
from aaca.evaluate.captions.scores import caption_table, figures_of, score_captions
from aaca.evaluate.captions.structure import (
    claim,
    grammar_parser,
    node_recall,
    relation_directions,
    structure_error,
)
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.world.phrases import Grammar

BOX = (0, 0, 4, 4)
GRAMMAR = Grammar(("circle", "square", "triangle"), ("red", "blue"), ("small", "large"), ("left of", "above"))
PARSE = grammar_parser(GRAMMAR)
TEXTS = [
    "a small red circle left of a blue square",
    "a large blue triangle above a red circle",
    "a red square left of a triangle",
    "a blue circle above a small red square",
]
REFERENCES = {f"{i // 2}_{i % 2}": [text] for i, text in enumerate(TEXTS)}
SELVES = {name: texts[0] for name, texts in REFERENCES.items()}
GRAPHS = {name: PARSE(caption) for name, caption in SELVES.items()}
IMAGES = {name: name.rsplit("_", 1)[0] for name in REFERENCES}


def test_references_against_themselves_are_perfect():
    scores = score_captions(SELVES, REFERENCES, GRAPHS, parse=PARSE)
    for name in (
        "bleu1",
        "bleu2",
        "bleu3",
        "bleu4",
        "rouge_l",
        "node_recall",
        "direction_accuracy",
        "direction_judged",
    ):
        assert scores[name] == pytest.approx(100, abs=1e-6), name
    assert scores["cider"] == pytest.approx(1000)
    assert [scores[f"g_{part}"] for part in ("objects", "attributes", "relationships", "sum", "total")] == [0] * 5
    assert scores["length"] == np.mean([len(text.split()) for text in TEXTS])
    assert scores["vocabulary"] == len({word for text in TEXTS for word in text.split()})


def test_cider_of_references_is_ten_unless_an_n_gram_length_has_no_weight():
    assert cider(SELVES, REFERENCES) == pytest.approx(10)
    short = {"a": ["one two three"], "b": ["four five six"]}
    assert cider({"a": "one two three", "b": "four five six"}, short) == pytest.approx(7.5)  # no 4-gram
    everywhere = {"a": ["w w w w x"], "b": ["w w w w y"]}
    index = CiderIndex.fit(everywhere)
    assert index.score("w w w w x", everywhere["a"]) == pytest.approx(10)
    assert index.score("w w w w", everywhere["a"]) == 0.0  # all its n-grams are in every document


def test_cider_with_one_document_is_zero():
    assert cider({"a": TEXTS[0]}, {"a": [TEXTS[0]]}) == 0.0


def test_cider_by_hand():
    references = {"a": ["x y"], "b": ["z"], "c": ["x w"]}
    # Unigrams of "x x y" against "x y": weights 2·log(3/2), log 3 against log(3/2), log 3; bigram x y against x x, x y.
    one, two = log(3 / 2), log(3)
    unigram = (one * one + two * two) / (np.hypot(2 * one, two) * np.hypot(one, two))
    bigram = two * two / (np.hypot(two, two) * two)
    expected = 10 * (unigram + bigram) / 4 * exp(-1 / 72)
    assert CiderIndex.fit(references).score("x x y", references["a"]) == pytest.approx(expected, abs=1e-12)


def test_frozen_frequencies_keep_a_caption_s_score_in_a_subset():
    captions = {**SELVES, "0_0": TEXTS[3], "1_0": "a red square above a circle"}
    index = CiderIndex.fit(REFERENCES)
    full = dict(zip(captions, index.scores(captions, REFERENCES), strict=True))
    some = {name: captions[name] for name in ("0_0", "1_0")}
    references = {name: REFERENCES[name] for name in some}
    frozen = index.scores(some, references)
    np.testing.assert_array_equal(frozen, [full["0_0"], full["1_0"]])
    refitted = CiderIndex.fit(references).scores(some, references)
    assert np.abs(refitted - frozen).min() > 0.1
    assert score_captions(some, references, index=index)["cider"] == pytest.approx(100 * frozen.mean())
    assert score_captions(some, references)["cider"] == pytest.approx(100 * refitted.mean())


def test_an_index_survives_its_file(tmp_path):
    references = {"a": ["über den 鳥", "b b"], "b": ["den b"]}
    index = CiderIndex.fit(references)
    assert index.frequencies[("den",)] == 2 and index.frequencies[("b", "b")] == 1  # documents, not occurrences
    index.save(tmp_path / "index.json")
    assert CiderIndex.load(tmp_path / "index.json") == index


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"documents": 2}',
        '{"documents": 2, "frequencies": {"a": 3}}',
        '{"documents": 2, "frequencies": {"a": 0}}',
        '{"documents": 0, "frequencies": {}}',
        '{"documents": 2, "frequencies": {"a b c d e": 1}}',
    ],
)
def test_a_broken_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataError, match=r"index\.json: not an index"):
        CiderIndex.load(tmp_path / "index.json")


def test_bleu_and_rouge_by_hand():
    # Clipping: "the" occurs twice in one reference at most; closest length of 5 and 7 to 6 is the shorter.
    scores = bleu({"a": "the the the the the the"}, {"a": ["the cat the mat sat", "on the mat here we are now"]})
    assert scores[0] == pytest.approx(2 / 6, abs=1e-8)
    shorter = bleu({"a": "x y"}, {"a": ["x y z w"]})
    assert shorter[0] == pytest.approx(exp(1 - 4 / 2), abs=1e-8)
    # Longest common subsequence x y w of 3 in 4 and 5 words.
    precision, recall = 3 / 4, 3 / 5
    f = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l("x y q w", ["x a y b w"]) == pytest.approx(f)
    assert rouge_l("x y", ["x y z z", "q x"]) == pytest.approx(2.44 * 0.5 / (0.5 + 1.44))  # P of the first, R = 1/2


def test_diversity_by_hand():
    captions = ["a red car", "a red bus", "a"]
    assert div_n(captions, 1) == pytest.approx(4 / 7)
    assert div_n(captions, 2) == pytest.approx(3 / 7)
    assert div_n(["", " "], 1) == 0.0


def test_self_cider_closed_forms():
    index = CiderIndex(100, {("a",): 50})
    same = ["one two three four five"] * 4
    apart = ["one two three four", "five six seven eight", "nine ten eleven twelve"]
    assert self_cider(same, index) == 0.0
    assert self_cider(["w"] * 3, index) == 0.0
    assert self_cider(apart, index) == pytest.approx(1, abs=1e-12)
    assert self_cider(["", ""], index) == 0.0
    # Two pairs of equal captions: eigenvalues 2, 2, 0, 0 give log_4 2.
    assert self_cider([apart[0], apart[0], apart[1], apart[1]], index) == pytest.approx(0.5, abs=1e-12)
    # Two captions with cosine c: eigenvalues 1 ± c; unigrams share one of two words, no bigram is shared.
    c = index.similarities(["x y", "x z"])[0, 1] * 4
    assert c == pytest.approx(0.5)
    ratio = np.sqrt(0.5 + c / 4) / (np.sqrt(0.5 + c / 4) + np.sqrt(0.5 - c / 4))
    assert self_cider(["x y", "x z"], index) == pytest.approx(-np.log2(ratio), abs=1e-12)


def test_diversity_is_a_mean_over_images():
    index = CiderIndex(10, {})
    one, two = ["p q r s"] * 2, ["p q r s", "t u v w"]
    assert diversity({"a": one, "b": two}, index) == pytest.approx(
        {"div1": (4 / 8 + 1) / 2, "div2": (3 / 8 + 6 / 8) / 2, "self_cider": 0.5}
    )
    with pytest.raises(DataError, match="at least two"):
        diversity({"a": ["p"]}, index)
    with pytest.raises(DataError, match="no image"):
        diversity({}, index)


def test_structure_error_by_hand():
    graph = PARSE("a small red circle left of a blue square")  # 2 objects, 3 attributes, 1 relationship
    assert structure_error(PARSE("a red circle"), graph).tolist() == [1, 2, 1, 4, 4]
    assert structure_error(PARSE("a circle left of a square above a triangle"), graph).tolist() == [1, 3, 1, 5, 1]
    assert structure_error(PARSE(""), graph).tolist() == [2, 3, 1, 6, 6]
    assert structure_error(PARSE("foo of bar"), graph).tolist() == [2, 3, 1, 6, 6]
    assert structure_error(PARSE("a circle and a circle"), PARSE("a circle")).tolist()[0] == 1  # each occurrence counts


def test_names_are_claimed_longest_first_and_once():
    assert claim("a circle left of a left circle", ["left", "circle", "left of", "circle"]) == (4, ["a", "a"])
    assert claim("a circle", ["circle", "circle"]) == (1, ["a"])
    assert claim("left a of", ["left of"]) == (0, ["left", "a", "of"])
    assert claim("", ["x"]) == (0, [])
    assert claim("x", ["", " "]) == (0, ["x"])


def test_node_recall_by_hand():
    graph = SceneGraph(
        (GraphObject(0, "traffic light", ("red", ""), BOX), GraphObject(1, "鳥", (), BOX)),
        (Relationship(0, 1, 0, "sit on"),),
    )
    assert node_recall("鳥 sit on a red traffic light", graph) == (4, 4)  # the abstract attribute asks for no word
    assert node_recall("a red light of traffic", graph) == (1, 4)
    assert node_recall("", graph) == (0, 4)


def test_relation_directions_by_hand():
    graph = PARSE("a circle left of a square above a triangle")
    assert relation_directions(PARSE("a circle left of a square above a triangle"), graph) == (2, 2)
    assert relation_directions(PARSE("a square left of a circle"), graph) == (0, 1)
    assert relation_directions(PARSE("a circle above a square"), graph) == (0, 0)
    assert relation_directions(PARSE(""), graph) == (0, 0)
    alike = PARSE("a red circle left of a blue circle")
    assert relation_directions(alike, alike) == (0, 0)
    both = SceneGraph(graph.objects[:2], (Relationship(0, 0, 1, "left of"), Relationship(1, 1, 0, "left of")))
    assert relation_directions(PARSE("a circle left of a square"), both) == (1, 1)


def test_figures_are_ratios_of_sums():
    captions = {**SELVES, "0_0": "a red circle", "1_1": ""}
    table = caption_table(captions, REFERENCES, GRAPHS, parse=PARSE)
    figures = figures_of(table)
    found, nodes = zip(*(node_recall(captions[name], GRAPHS[name]) for name in captions), strict=True)
    assert figures["node_recall"] == pytest.approx(100 * sum(found) / sum(nodes))
    errors = np.array([structure_error(PARSE(captions[name]), GRAPHS[name]) for name in captions])
    assert [figures[f"g_{part}"] for part in ("objects", "attributes", "relationships", "sum", "total")] == (
        errors.mean(axis=0).tolist()
    )
    assert figures["direction_accuracy"] == 100 and figures["direction_judged"] == 50
    np.testing.assert_allclose([figures[f"bleu{n}"] for n in range(1, 5)], 100 * bleu(captions, REFERENCES))
    assert set(figures_of(caption_table(captions, REFERENCES))).isdisjoint({"g_total", "node_recall"})


def test_all_captions_empty():
    scores = score_captions(dict.fromkeys(SELVES, ""), REFERENCES, GRAPHS, parse=PARSE)
    for name in ("bleu1", "bleu4", "rouge_l", "cider", "node_recall", "length", "vocabulary"):
        assert scores[name] == 0, name
    assert np.isnan(scores["direction_accuracy"])


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({}, {"a": ["x"]}, "no caption given"),
        ({"a": "x"}, {"b": ["x"]}, "references: none for 'a'"),
        ({"a": "x"}, {"a": ["x"], "b": ["x"]}, "no caption for 'b'"),
        ({"a": "x"}, {"a": []}, "'a'"),
        ({"a": "x"}, {"a": ["x", " "]}, "'a'"),
        ({"a": "x"}, {"a": "x"}, "list of captions"),
    ],
)
def test_captions_and_references_must_pair(captions, references, message):
    with pytest.raises(DataError, match=message):
        score_captions(captions, references)


def test_graphs_must_be_there():
    with pytest.raises(DataError, match="graphs: none for '1_1'"):
        caption_table(SELVES, REFERENCES, {name: GRAPHS[name] for name in list(GRAPHS)[:3]})
    with pytest.raises(DataError, match="without graphs"):
        caption_table(SELVES, REFERENCES, parse=PARSE)


def noisy_tables(rng, rates, images=30, each=3):
    """A table for each rate of word errors, of the same references; three captions an image."""
    references = {f"{i}_{k}": [" ".join(rng.choice(list("abcdefgh"), 8))] for i in range(images) for k in range(each)}
    index = CiderIndex.fit(references)
    tables = []
    for rate in rates:
        captions = {
            name: " ".join("?" if rng.random() < rate else word for word in texts[0].split())
            for name, texts in references.items()
        }
        tables.append(caption_table(captions, references, index=index))
    return tables, {name: name.split("_")[0] for name in references}


def test_interval_of_a_planted_difference_covers_it():
    # BLEU-1 of a caption with errors at rate r is 100·(1 − r) on average: the true difference is 20.
    rng = np.random.default_rng(0)
    inside = 0
    for repeat in range(60):
        (good, bad), images = noisy_tables(rng, (0.1, 0.3), images=15, each=2)
        interval = difference(good, bad, images, resamples=200, seed=repeat)["bleu1"]
        inside += interval.low <= 20 <= interval.high
        assert interval.low <= interval.value <= interval.high
    assert 50 <= inside <= 60  # of 95 %; three standard deviations


def test_difference_by_hand_and_its_order():
    (good, bad), images = noisy_tables(np.random.default_rng(1), (0.1, 0.4))
    found = difference(good, bad.iloc[::-1], images, resamples=100)
    assert found == difference(good, bad, images, resamples=100)
    one, two = figures_of(good), figures_of(bad)
    for name, interval in found.items():
        assert interval.value == pytest.approx(one[name] - two[name]), name
    assert found["cider"].low > 0 and found["bleu4"].low > 0
    same = difference(good, good, images, resamples=50)["cider"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_difference_draws_images_not_captions():
    # All captions of an image are alike: with captions as units the interval would be about √8 times narrower.
    rng = np.random.default_rng(2)
    references = {f"{i}_{k}": ["p q r s"] for i in range(20) for k in range(8)}
    wrong = {str(i): rng.random() < 0.5 for i in range(20)}
    images = {name: name.split("_")[0] for name in references}
    first = caption_table({name: "p q r s" for name in references}, references)
    second = caption_table({n: "t" if wrong[images[n]] else "p q r s" for n in references}, references)
    by_image = difference(first, second, images, resamples=500)["rouge_l"]
    by_caption = difference(first, second, {name: name for name in references}, resamples=500)["rouge_l"]
    widths = [interval.high - interval.low for interval in (by_image, by_caption)]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(8), rel=0.25)


def test_a_filter_that_drops_bad_images_beats_random_filters():
    rng = np.random.default_rng(3)
    (good, bad), images = noisy_tables(rng, (0.1, 0.5))
    hard = {str(i) for i in range(10)}
    mixed = good.copy()
    rows = [name for name in mixed.index if images[name] in hard]
    mixed.loc[rows] = bad.loc[rows]
    kept = {image for image in images.values() if image not in hard}
    effect = filter_effect(mixed, kept, images, resamples=400)["cider"]
    chosen = mixed[[images[name] in kept for name in mixed.index]]
    assert effect.kept == pytest.approx(figures_of(chosen)["cider"])
    assert effect.all == pytest.approx(figures_of(mixed)["cider"])
    assert effect.gain.value == pytest.approx(effect.kept - effect.all) and effect.gain.low > 0
    assert effect.kept > effect.random.high and effect.p == pytest.approx(1 / 401)
    assert effect.random.value == pytest.approx(effect.all, rel=0.02)


def test_a_random_filter_is_one_of_the_random_filters():
    rng = np.random.default_rng(4)
    p, covered = [], 0
    for repeat in range(40):
        (table,), images = noisy_tables(rng, (0.3,), images=16, each=1)
        kept = set(rng.permutation(sorted(set(images.values())))[:8])
        effect = filter_effect(table, kept, images, resamples=100, seed=repeat)["bleu1"]
        p.append(effect.p)
        covered += effect.gain.low <= 0 <= effect.gain.high
    assert 0.3 < np.mean(p) < 0.7  # uniform when the filter knows nothing
    assert covered >= 32


def test_keeping_all_images_gains_nothing():
    (table,), images = noisy_tables(np.random.default_rng(5), (0.3,), images=6)
    for effect in filter_effect(table, set(images.values()), images, resamples=20).values():
        assert (effect.gain.value, effect.gain.low, effect.gain.high) == (0, 0, 0)
        assert effect.p == 1


def test_intervals_refuse_what_does_not_fit():
    (table,), images = noisy_tables(np.random.default_rng(6), (0.3,), images=3)
    with pytest.raises(DataError, match="1 names in one only"):
        difference(table, table.iloc[1:], images)
    with pytest.raises(DataError, match="images: none for '0_0'"):
        difference(table, table, {})
    with pytest.raises(DataError, match="kept: no image"):
        filter_effect(table, set(), images)
    with pytest.raises(DataError, match="'nowhere' is no image"):
        filter_effect(table, {"nowhere"}, images)


def test_what_an_external_metric_lacks_is_said(monkeypatch, tmp_path):
    captions, references = {"a": "x"}, {"a": ["x"]}
    monkeypatch.setattr(external, "_package", lambda: None)
    figures, skipped = external.external_scores(captions, references, ["meteor", "spice"])
    assert figures == {} and all("pycocoevalcap" in line for line in skipped) and len(skipped) == 2
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
        external.external_scores(captions, references, ["metoer"])


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
