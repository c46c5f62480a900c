"""Debug sets: K a class, seeds, shortfalls and their filling, ids, paths, save and load."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.debugset.build import select_debug_set
from aaca.debugset.debug_set import DebugSet
from aaca.debugset.selectors.base import Selection, Selector
from aaca.debugset.selectors.coreset import CoreSet
from aaca.debugset.selectors.random import Random
from aaca.debugset.selectors.similarity import Similarity
from aaca.debugset.selectors.uncertainty import Entropy
from aaca.runtime.errors import ConfigError, DataError

CLASSES = ("kitchen", "library", "museum")
SIZES = (12, 3, 8)


class Spy(Selector):
    """Picks `most` at most, and remembers what it was shown."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.seen = []

    def select(self, candidates, context, k):
        self.seen.append((candidates, context))
        positions = np.argsort(candidates.ids)[: min(k, self.most)]
        return Selection(positions, -np.arange(len(positions), dtype=float))


def split(name: str, sizes=SIZES, wrong: int = 2, root: Path = Path("/images")) -> tuple[ImageTable, Scored]:
    """Rows of all classes mixed; the first `wrong` of every class are predicted as the next class."""
    rng = np.random.default_rng(len(name))
    labels = np.repeat(np.arange(3), sizes)
    ids = [f"{name}/{label}/{i:02d}" for label, size in enumerate(sizes) for i in range(size)]
    predicted = np.array(
        [(label + (i < wrong)) % 3 for label, size in enumerate(sizes) for i in range(size)], dtype=np.int64
    )
    logits = rng.normal(size=(len(ids), 3)).astype(np.float32) + 9 * np.eye(3, dtype=np.float32)[predicted]
    embeddings = rng.normal(size=(len(ids), 4)).astype(np.float32)
    mix = rng.permutation(len(ids))
    frame = pd.DataFrame({"id": ids, "label": labels, "split": name, "path": [f"{x}.png" for x in ids]}).iloc[mix]
    table = ImageTable.build(frame, CLASSES, root)
    return table, Scored.of(table.ids, table.labels, embeddings[mix], logits[mix])


def build(selector=None, per_class=3, seed=0, fill="none", sizes=SIZES, wrong=2, root=Path("/images")) -> DebugSet:
    table, candidates = split("pool", sizes, root=root)
    _, audit = split("audit", (4, 5, 6), wrong=wrong)
    _, train = split("train", (5, 5, 5))
    return select_debug_set(selector or Random(), candidates, table, audit, train, per_class, seed, fill)


def test_k_of_every_class_with_rank_score_origin_and_absolute_paths():
    table, candidates = split("pool")
    debug = build(Entropy(), per_class=3)
    frame = debug.table.frame
    assert frame["label"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert frame["rank"].tolist() == [1, 2, 3] * 3
    assert (frame["provenance"] == "real").all()
    assert frame["id"].tolist() == [f"debug/{origin}" for origin in frame["origin_id"]]
    assert frame["path"].tolist() == [f"/images/{origin}.png" for origin in frame["origin_id"]]
    assert debug.shortfalls == {}
    logits = {name: row.astype(float) for name, row in zip(candidates.ids, candidates.logits, strict=True)}
    for label in range(3):
        p = {i: np.exp(logits[i]) / np.exp(logits[i]).sum() for i in table.ids[table.labels == label]}
        h = {i: -(x * np.log(x)).sum() for i, x in p.items()}
        best = sorted(h, key=lambda i: -h[i])[:3]
        rows = frame[frame["label"] == label]
        assert rows["origin_id"].tolist() == best
        np.testing.assert_allclose(rows["score"], [h[i] for i in best], rtol=1e-9)


def test_relative_roots_become_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    debug = build(root=Path("data"))
    assert debug.table.frame["path"].iloc[0] == str(tmp_path / "data" / f"{debug.table.frame['origin_id'].iloc[0]}.png")


def test_a_selector_sees_its_class_only_and_failures_by_true_class():
    spy = Spy()
    build(spy, seed=5)
    assert [context.class_name for _, context in spy.seen] == list(CLASSES)
    for label, (candidates, context) in enumerate(spy.seen):
        assert context.label == label
        assert len(candidates) == SIZES[label]
        for part in (candidates, context.audit, context.train, context.failures):
            assert (part.labels == label).all()
        assert sorted(context.failures.ids) == [f"audit/{label}/00", f"audit/{label}/01"]
        assert len(context.audit) == (4, 5, 6)[label]
    seeds = [context.seed for _, context in spy.seen]
    assert seeds == [int(np.random.SeedSequence((5, label)).generate_state(2, np.uint32)[0]) for label in range(3)]
    assert len(set(seeds)) == 3


def test_same_seed_same_set_other_seed_other_set():
    first, again, other = (build(per_class=3, seed=seed).table.frame for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["id"].tolist() != other["id"].tolist()


@pytest.mark.parametrize("fill", ["none", "random", "repeat"])
def test_the_order_of_the_pool_does_not_matter(fill):
    table, candidates = split("pool")
    _, audit = split("audit", (4, 5, 6))
    frames = []
    for seed in (0, 1):
        mix = np.random.default_rng(seed).permutation(len(table))
        debug = select_debug_set(Spy(most=2), candidates.take(mix), table.take(mix[::-1]), audit, None, 7, 3, fill)
        frames.append(debug.table.frame)
    pd.testing.assert_frame_equal(*frames)


def test_shortfalls_are_reported_and_logged(caplog):
    with caplog.at_level(logging.WARNING):
        debug = build(per_class=10)
    assert debug.shortfalls == {"library": 7, "museum": 2}
    assert np.bincount(debug.table.labels).tolist() == [10, 3, 8]
    assert "class 'library': 3 candidates picked of 10 wanted" in caplog.text


def test_fill_repeat_goes_round_from_the_best():
    debug = build(Entropy(), per_class=8, fill="repeat")
    plain = build(Entropy(), per_class=8)
    rows = debug.table.frame[debug.table.labels == 1]
    three = plain.table.frame[plain.table.labels == 1]["origin_id"].tolist()
    assert rows["origin_id"].tolist() == (three * 3)[:8]
    a, b, c = three
    assert rows["id"].tolist() == [f"debug/{x}" for x in (a, b, c, f"{a}#2", f"{b}#2", f"{c}#2", f"{a}#3", f"{b}#3")]
    assert rows["rank"].tolist() == list(range(1, 9))
    assert debug.shortfalls == plain.shortfalls == {"library": 5}


def test_fill_random_takes_unpicked_candidates_first_then_repeats_evenly():
    debug = build(Spy(most=2), per_class=7, fill="random")
    kitchen, library = (debug.table.frame[debug.table.labels == label] for label in (0, 1))
    assert kitchen["origin_id"].is_unique
    assert kitchen["score"].isna().tolist() == [False] * 2 + [True] * 5
    assert sorted(library["origin_id"].value_counts()) == [2, 2, 3]
    assert set(library["origin_id"][:3]) == {"pool/1/00", "pool/1/01", "pool/1/02"}
    assert debug.shortfalls == {"kitchen": 5, "library": 5, "museum": 5}
    other = build(Spy(most=2), per_class=7, seed=1, fill="random")
    assert other.table.frame["id"].tolist() != debug.table.frame["id"].tolist()


@pytest.mark.parametrize("fill", ["none", "random", "repeat"])
def test_a_class_without_candidates_is_a_shortfall_of_k(fill, caplog):
    debug = build(per_class=2, sizes=(4, 0, 4), fill=fill)
    assert debug.shortfalls == {"library": 2}
    assert np.bincount(debug.table.labels).tolist() == [2, 0, 2]
    assert "class 'library': 0 candidates picked of 2 wanted" in caplog.text


def test_fill_fail_gives_up_and_names_the_class():
    with pytest.raises(DataError, match=r"^class 'library': 3 candidates of 4 wanted, and debugset\.fill=fail; raise"):
        build(per_class=4, fill="fail")
    with pytest.raises(DataError, match=r"^class 'kitchen': 2 candidates of 3 wanted"):
        build(Spy(most=2), per_class=3, fill="fail")
    with pytest.raises(DataError, match=r"^class 'library': 0 candidates of 2 wanted"):
        build(per_class=2, sizes=(4, 0, 4), fill="fail")
    enough = build(per_class=3, fill="fail")
    assert enough.shortfalls == {} and np.bincount(enough.table.labels).tolist() == [3, 3, 3]


def test_no_candidates_at_all():
    with pytest.raises(DataError, match=r"no class has a candidate to select from \(0 candidates, 3 classes\)"):
        build(sizes=(0, 0, 0))


def test_a_class_without_failures_goes_by_its_audit_images(caplog):
    assert len(build(Similarity(), wrong=0)) == 9
    assert "class 'museum' has no failures" in caplog.text


@pytest.mark.parametrize("k", [0, -3])
def test_per_class_below_one(k):
    with pytest.raises(ConfigError, match=f"debugset.per_class: {k} images a class; expected 1 or more"):
        build(per_class=k)


def test_other_impossible_arguments():
    with pytest.raises(ConfigError, match=r"debugset\.fill: 'repat'; nearest valid: repeat"):
        build(fill="repat")
    with pytest.raises(ConfigError, match="seed: -1"):
        build(seed=-1)
    table, candidates = split("pool")
    with pytest.raises(DataError, match="selector CoreSet needs the features of the training images"):
        select_debug_set(CoreSet(), candidates, table, candidates, None, 2, 0)
    with pytest.raises(DataError, match=r"'pool/./..' has features but is not in the table"):
        select_debug_set(Random(), candidates, table.take([0]), candidates, None, 2, 0)
    wrong = ImageTable.build(table.frame.assign(label=(table.labels + 1) % 3), CLASSES)
    with pytest.raises(DataError, match="has another label in its features than in the table"):
        select_debug_set(Random(), candidates, wrong, candidates, None, 2, 0)


def test_save_and_load(tmp_path):
    debug = build(Spy(most=2), per_class=5, fill="random")
    debug.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["debugset.json", "debugset.parquet"]
    loaded = DebugSet.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.table.frame, debug.table.frame)
    assert loaded.table.classes == CLASSES
    assert loaded.shortfalls == debug.shortfalls
    assert loaded.table.file(0) == debug.table.file(0)
    (tmp_path / "debugset.json").unlink()
    with pytest.raises(DataError, match=r"not a debug set \(debugset.json is missing\)"):
        DebugSet.load(tmp_path)
