"""What neurons answer to, on a network whose neurons see one rectangle each; against loops and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score
from torch import nn

from aaca.data.table import ImageTable
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.neurons.responses import Responses, responses_of, score
from aaca.discover.neurons.taken_out import WithoutFeatures, donors, images_of
from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError, DataError

SIDE, CELLS, NAMES = 16, 4, ["corner 0", "corner 1", "corner 2"]
CORNERS = [(0, 0), (0, 8), (8, 0)]


class Corners(nn.Module):
    """Neuron j is the mean of corner j; the last sees the part that no concept covers."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def get_classifier(self):
        return self.fc

    def forward_features(self, images):
        parts = [images[:, :, top : top + 8, left : left + 8] for top, left in [*CORNERS, (8, 8)]]
        return torch.stack([part.mean(dim=(1, 2, 3)) for part in parts], dim=1)

    def forward_head(self, features, pre_logits):
        return features


def world(n=60, seed=0):
    """(classifier, normalised images, table of concepts): a concept is a corner that is 2 rather than about 0."""
    rng = np.random.default_rng(seed)
    classifier = Classifier(Corners(), SIDE, [0.0] * 3, [1.0] * 3).eval()
    images = torch.from_numpy(rng.normal(0, 0.2, (n, 3, SIDE, SIDE)).astype(np.float32))
    there = rng.random((n, 3)) < 0.5
    masks, rows, names = [], [], []
    for row, column in zip(*np.nonzero(there), strict=True):
        top, left = CORNERS[column]
        images[row, :, top : top + 8, left : left + 8] += 2
        mask = np.zeros((CELLS, CELLS), dtype=np.float32)
        mask[top // 4 : top // 4 + 2, left // 4 : left // 4 + 2] = 1
        masks.append(mask)
        rows.append(int(row))
        names.append(NAMES[column])
    table = ConceptTable.build(rows, names, ["object"] * len(rows), np.array(masks), n, (CELLS, CELLS))
    return classifier, images, table


def pairs_and_masks(table):
    codes = pd.Index(NAMES).get_indexer(table.frame["concept"])
    return np.stack([table.frame["row"].to_numpy(), codes], axis=1), table.masks


@pytest.mark.parametrize("fill", ["mean", "other", "blur"])
def test_the_effect_finds_the_neuron_that_sees_the_concept(fill):
    classifier, images, table = world()
    pairs, masks = pairs_and_masks(table)
    labels = np.arange(len(images)) % 2
    others = None
    if fill == "other":
        rows = donors(labels, table, pairs, NAMES, seed=0)
        others = lambda places: images[rows[places]]  # noqa: E731
    with torch.no_grad():
        features = classifier.embed(images)[0].numpy()
        describe = WithoutFeatures(classifier, masks, fill, others)
        without, logits = describe(images[pairs[:, 0]], torch.arange(len(pairs)))
        part, _ = describe(images[pairs[7:9, 0]], torch.tensor([7, 8]))
    assert describe.dim == 4 and torch.equal(logits, classifier.head(without))
    assert torch.allclose(part, without[7:9], atol=1e-6)  # whatever else is in the batch
    found = responses_of(features, labels, table, pairs, without.numpy(), NAMES)
    assert (found.effect[:3].argmax(axis=0) == np.arange(3)).all()
    if fill != "blur":  # which spreads the neighbours' colour
        own = np.diag(found.effect[:3])
        assert (own > 1.2).all() and (own > 4 * np.abs(found.effect[3])).all()
        assert (score(found).argmax(axis=0) == np.arange(3)).all()


def test_effects_against_a_loop():
    rng = np.random.default_rng(1)
    features, without = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(30, 5)).astype(np.float32)
    features[:, 4] = 0.1  # a dead neuron
    pairs = np.stack([rng.integers(0, 40, 30), rng.integers(0, 2, 30)], axis=1)
    table = ConceptTable.build(pairs[:, 0], [NAMES[at] for at in pairs[:, 1]], ["object"] * 30, None, 40, (1, 1))
    found = responses_of(features, np.zeros(40), table, pairs, without, NAMES)
    for column in (0, 1):
        own = pairs[:, 1] == column
        gaps = features[pairs[own, 0]] - without[own]
        np.testing.assert_allclose(found.effect[:4, column], gaps.mean(0)[:4] / features.std(0)[:4], rtol=1e-4)
        np.testing.assert_allclose(found.t[:, column], ttest_1samp(gaps, 0).statistic, rtol=1e-4)
        assert found.images[column] == len(set(pairs[own, 0].tolist()))
    assert np.isnan(found.effect[:, 2]).all() and np.isnan(found.effect[4]).all()  # nobody has it; never varies


def concepts_of(present, names=NAMES):
    rows, columns = np.nonzero(present)
    return ConceptTable.build(rows, [names[at] for at in columns], ["object"] * len(rows), None, len(present), (1, 1))


def test_contrast_against_scikit_learn_and_whatever_the_chunk():
    rng = np.random.default_rng(2)
    features = rng.integers(0, 6, (150, 7)).astype(np.float32)  # many ties
    labels, present = rng.integers(0, 3, 150), rng.random((150, 3)) < [0.5, 0.2, 0.02]
    present[labels == 1, 0] = True  # a class in which all images show it says nothing
    table = concepts_of(present)
    none = np.zeros((0, 2), dtype=np.int64)
    whole, parts = (responses_of(features, labels, table, none, None, NAMES, 5, chunk) for chunk in (256, 2))
    for neuron in range(7):
        for column in range(3):
            values = []
            for label in range(3):
                own = labels == label
                has = present[own, column]
                if min(has.sum(), (~has).sum()) >= 5:
                    values.append(2 * roc_auc_score(has, features[own, neuron]) - 1)
            expected = np.mean(values) if values else np.nan
            np.testing.assert_allclose(whole.contrast[neuron, column], expected, atol=1e-6)
    assert np.isnan(whole.contrast[:, 2]).all() and np.isfinite(whole.contrast[:, :2]).all()
    np.testing.assert_array_equal(whole.contrast, parts.contrast)
    assert np.isnan(whole.effect).all() and (score(whole)[:, 2] == 0).all()


def test_a_neuron_for_the_class_is_none_for_what_comes_with_it():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 2000)
    sand = rng.random(2000) < np.where(labels == 0, 0.95, 0.05)
    features = np.stack([3.0 * (labels == 0), 1.5 * sand], axis=1) + rng.normal(size=(2000, 2))
    found = responses_of(
        features.astype(np.float32), labels, concepts_of(sand[:, None]), np.zeros((0, 2), int), None, NAMES[:1]
    )
    assert abs(roc_auc_score(sand, features[:, 0]) - 0.5) > 0.4  # over all images it looks like one
    assert abs(found.contrast[0, 0]) < 0.1 < 0.6 < found.contrast[1, 0]


def test_scores_need_both_signs_where_both_are_known():
    nan = np.nan
    effect, contrast = [1.0, 1.0, -1.0, 1.0, nan, nan, -1.0], [0.5, -0.5, 0.5, nan, 0.5, nan, nan]
    arrays = [np.array(values, dtype=np.float32)[:, None] for values in (effect, effect, contrast)]
    found = score(Responses(["a"], *arrays, np.array([9])))[:, 0]
    rng = np.random.default_rng(4)
    apart = 2 * np.mean(rng.normal(1, 1, 400_000) > rng.normal(0, 1, 400_000)) - 1  # the AUC of one deviation
    np.testing.assert_allclose(found, [np.sqrt(apart * 0.5), 0, 0, apart, 0.5, 0, 0], atol=4e-3)


def test_donors_are_of_the_class_and_lack_the_concept():
    rng = np.random.default_rng(5)
    labels, present = rng.integers(0, 2, 80), rng.random((80, 3)) < 0.5
    present[labels == 1, 1], present[:, 2] = True, True
    pairs = np.argwhere(present)
    rows = donors(labels, concepts_of(present), pairs, NAMES, seed=0)
    own, column = labels[pairs[:, 0]], pairs[:, 1]
    assert not present[rows, column][column < 2].any()
    same = (column == 0) | ((column == 1) & (own == 0))
    assert (labels[rows] == own)[same].all()
    assert (labels[rows] == 0)[(column == 1) & (own == 1)].all()  # the class has none without it
    np.testing.assert_array_equal(rows, donors(labels, concepts_of(present), pairs, NAMES, seed=0))
    assert (rows != donors(labels, concepts_of(present), pairs, NAMES, seed=1)).any()


def test_other_images_are_read_as_the_classifier_sees_them(tmp_path):
    pixels = np.random.default_rng(6).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(tmp_path / "all.npy", pixels)
    frame = pd.DataFrame({"id": list("abcd"), "label": [0, 1, 0, 1], "path": "all.npy", "row": range(4)})
    classifier = Classifier(Corners(), SIDE, [0.5, 0.4, 0.3], [0.1, 0.2, 0.3])
    found = images_of(ImageTable.build(frame, ("x", "y"), tmp_path), np.array([3, 1, 1]), classifier)(np.array([0, 2]))
    expected = (pixels[[3, 1]] / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3]
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), expected, atol=1e-5)


def test_save_and_load(tmp_path):
    rng = np.random.default_rng(7)
    effect, t, contrast = rng.normal(size=(3, 4, 2)).astype(np.float32)
    effect[0, 0] = np.nan
    Responses(["grass", "naïve sand"], effect, t, contrast, np.array([3, 4])).save(tmp_path)
    found = Responses.load(tmp_path)
    assert found.names == ["grass", "naïve sand"] and [file.name for file in tmp_path.iterdir()] == ["responses.npz"]
    for name, value in {"effect": effect, "t": t, "contrast": contrast, "images": [3, 4]}.items():
        np.testing.assert_array_equal(getattr(found, name), value)
    (tmp_path / "responses.npz").write_bytes(b"PK\x03\x04 cut off")
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError, match=r"responses\.npz"):
            Responses.load(folder)


def test_what_does_not_fit_is_said():
    classifier, _, table = world(10)
    pairs, masks = pairs_and_masks(table)
    features, labels, without = np.zeros((10, 4)), np.zeros(10), np.zeros((len(pairs), 4))
    for given, message in [
        ((features[:9], labels, table, pairs, without), "10 images"),
        ((features, labels, table, pairs, without[1:]), "expected"),
        ((features, labels, table, pairs + np.array([0, 9]), without), "beyond"),
        ((features + np.nan, labels, table, pairs, without), "NaN"),
        ((features, labels, table, pairs, without + np.inf), "NaN or infinite"),
    ]:
        with pytest.raises(DataError, match=message):
            responses_of(*given, NAMES)
    for fill, others in [("means", None), ("other", None), ("mean", lambda places: None)]:
        with pytest.raises(ConfigError, match=r"neurons\.fill"):
            WithoutFeatures(classifier, masks, fill, others)
