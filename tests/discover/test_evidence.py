"""Evidence: every number against a loop over images, and planted truth in a toy world."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact

from aaca.discover.concepts.table import ConceptTable
from aaca.discover.evidence import ANY, MEANINGS, Audited, EvidenceRules, evidence_of, groups_of
from aaca.runtime.errors import ConfigError

CLASSES = ("cat", "dog", "cow")
RULES = EvidenceRules(least=4)
CELLS = (3, 3)


def random_world(n=120, places=True, seed=0):
    """Images with some of five concepts, random masks and maps, a third of them wrong."""
    rng = np.random.default_rng(seed)
    rows, names, masks = [], [], []
    for row in range(n):
        for name in rng.permutation(["sky", "mud", "hay", "pole", "dog"])[: rng.integers(1, 4)]:
            rows.append(row)
            names.append(str(name))
            masks.append(rng.random(CELLS) * (rng.random(CELLS) < 0.5))
    kinds = ["object"] * len(rows)
    table = ConceptTable.build(rows, names, kinds, np.array(masks) if places else None, n, CELLS)
    maps = rng.random((n, 2, *CELLS))
    maps /= maps.sum(axis=(2, 3), keepdims=True)
    labels = rng.integers(0, 3, n)
    predictions = np.where(rng.random(n) < 0.4, rng.integers(0, 3, n), labels)
    maps[:, 1] = np.where((predictions == labels)[:, None, None], maps[:, 0], maps[:, 1])
    train = ConceptTable.build(rows, names, kinds, None, n, CELLS)
    return Audited(CLASSES, labels, predictions, rng.random(n), table, maps.astype(np.float32), train, labels)


def share(audited, row, name, side):
    own = audited.concepts.frame[(audited.concepts.frame["row"] == row) & (audited.concepts.frame["concept"] == name)]
    return sum(float((audited.maps[row, side] * audited.concepts.masks[mask]).sum()) for mask in own["mask"])


def area(audited, row, name):
    own = audited.concepts.frame[(audited.concepts.frame["row"] == row) & (audited.concepts.frame["concept"] == name)]
    return sum(float(audited.concepts.masks[mask].astype(np.float32).mean()) for mask in own["mask"])


def shows(table, row, name):
    return ((table.frame["row"] == row) & (table.frame["concept"] == name)).any()


def test_every_number_is_what_a_loop_over_images_gives():
    audited = random_world()
    frame = evidence_of(audited, RULES, seed=1)
    groups = {
        (ANY if g.true is None else CLASSES[g.true], ANY if g.rival is None else CLASSES[g.rival]): g
        for g in groups_of(audited, RULES, seed=1)
    }
    assert set(zip(frame["class"], frame["rival"], strict=True)) == set(groups) and len(groups) > 6
    for row in frame.sample(40, random_state=0).to_dict("records"):
        group, name = groups[row["class"], row["rival"]], row["concept"]
        shares = {i: share(audited, i, name, 0) for i in [*group.failures, *group.controls]}
        areas = {i: area(audited, i, name) for i in shares}
        there = {i: shows(audited.concepts, i, name) for i in shares}

        def hit(i, shares=shares, areas=areas, there=there):
            dense = areas[i] > 0 and shares[i] / areas[i] >= 1.5 and areas[i] >= 0.01
            return there[i] and (shares[i] >= 0.2 or dense)

        n11, n01 = (sum(hit(i) for i in rows) for rows in (group.failures, group.controls))
        n10, n00 = len(group.failures) - n11, len(group.controls) - n01
        assert row["share"] == pytest.approx(np.mean([shares[i] for i in group.failures]), abs=1e-3)
        own = np.mean([share(audited, i, name, 1) for i in group.controls])
        assert row["share_control"] == pytest.approx(own, abs=1e-3)
        assert row["area"] == pytest.approx(np.mean([areas[i] for i in group.failures]), abs=1e-3)
        assert row["in_failures"] == pytest.approx(n11 / len(group.failures))
        assert row["in_controls"] == pytest.approx(n01 / len(group.controls))
        assert row["log_odds"] == pytest.approx(math.log((n11 + 0.5) * (n00 + 0.5) / ((n10 + 0.5) * (n01 + 0.5))))
        assert row["p"] == pytest.approx(fisher_exact([[n11, n10], [n01, n00]], alternative="greater").pvalue)
        lacking = np.mean([not there[i] for i in group.failures])
        assert row["lacking"] == pytest.approx(lacking)


def rate(audited, name, label):
    own = np.flatnonzero(audited.train_labels == label)
    return (sum(shows(audited.train, i, name) for i in own) + 1) / (len(own) + 2)


def test_training_data_speaks_through_rho_and_the_valid_score():
    audited = random_world()
    frame = evidence_of(audited, RULES, seed=1)
    pair = frame[(frame["class"] == "cat") & (frame["rival"] == "dog")].iloc[0]
    assert pair["rho"] == pytest.approx(rate(audited, pair["concept"], 1) / rate(audited, pair["concept"], 0))
    fold = frame[(frame["class"] == ANY) & (frame["rival"] == "dog")].iloc[0]
    own = np.mean([rate(audited, fold["concept"], label) for label in (0, 2)])
    assert fold["rho"] == pytest.approx(rate(audited, fold["concept"], 1) / own)
    whichever = frame[(frame["class"] == "cow") & (frame["rival"] == ANY)].iloc[0]
    most = max(rate(audited, whichever["concept"], label) for label in (0, 1))
    assert whichever["rho"] == pytest.approx(most / rate(audited, whichever["concept"], 2))
    right = np.flatnonzero((audited.labels == 2) & (audited.predictions == 2))
    mean = np.mean([share(audited, i, whichever["concept"], 1) for i in right])
    others = np.mean([rate(audited, whichever["concept"], label) for label in (0, 1)])
    wanted = mean * math.log(rate(audited, whichever["concept"], 2) / others)
    assert whichever["S_val"] == pytest.approx(wanted, abs=1e-3)


def test_false_discoveries_are_controlled_within_a_class():
    frame = evidence_of(random_world(), RULES, seed=1)
    for _, own in frame.groupby("class"):
        np.testing.assert_allclose(own["q"], false_discovery_control(own["p"]))
        assert (own["S_conf"][own["q"] >= RULES.q] == 0).all()


def test_without_places_presence_takes_the_share_s_place():
    audited = random_world(places=False)
    frame = evidence_of(audited, RULES, seed=1)
    assert frame["share"].isna().any() and frame["log_odds"].notna().all()
    group = next(g for g in groups_of(audited, RULES, seed=1) if g.true == 0 and g.rival == 1)
    row = frame[(frame["class"] == "cat") & (frame["rival"] == "dog")].iloc[0]
    there = [shows(audited.concepts, i, row["concept"]) for i in group.failures]
    assert row["in_failures"] == pytest.approx(np.mean(there))


def planted(bug=True, n=240, seed=0):
    """Dogs lie on hay in training; f0 takes whatever lies on hay for a dog, and dogs elsewhere for cats."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    hay = rng.random(n) < np.where(labels == 1, 0.7, 0.3 if bug else 0.7)
    predictions = labels.copy()
    if bug:
        predictions[(labels != 1) & hay & (rng.random(n) < 0.8)] = 1
        predictions[(labels == 1) & ~hay & (rng.random(n) < 0.8)] = 0
    else:
        wrong = rng.random(n) < 0.2
        predictions[wrong] = (labels[wrong] + 1) % 3
    rows, names, masks = [], [], []
    ground, thing = np.zeros(CELLS), np.zeros(CELLS)
    ground[1:], thing[0] = 1, 1
    for row in range(n):
        rows += [row, row]
        names += ["hay" if hay[row] else "mud", CLASSES[labels[row]]]
        masks += [ground, thing]
    maps = np.tile(np.where(ground > 0, 0.8 / 6, 0.2 / 3), (n, 2, 1, 1)).astype(np.float32)
    in_train = rng.random(300) < np.where(np.arange(300) % 3 == 1, 0.95, 0.05 if bug else 0.95)
    grounds, things = ["hay" if lies else "mud" for lies in in_train], [CLASSES[row % 3] for row in range(300)]
    train = ConceptTable.build([*range(300)] * 2, grounds + things, ["object"] * 600, None, 300, CELLS)
    kinds = ["background", "object"] * n
    table = ConceptTable.build(rows, names, kinds, np.array(masks), n, CELLS)
    return Audited(CLASSES, labels, predictions, rng.random(n), table, maps, train, np.arange(300) % 3)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_confounder_comes_first_and_nothing_else_is_one(seed):
    frame = evidence_of(planted(seed=seed), EvidenceRules(), seed=0)
    for true in ("cat", "cow"):
        pair = frame[(frame["class"] == true) & (frame["rival"] == "dog")]
        assert pair.iloc[0]["concept"] == "hay" and pair.iloc[0]["confounder"] and pair["confounder"].sum() == 1
    dogs = frame[(frame["class"] == "dog") & (frame["rival"] == ANY)].sort_values("S_rely", ascending=False)
    assert dogs.iloc[0]["concept"] == "hay" and dogs.iloc[0]["relied_on"]
    assert not dogs.iloc[1]["relied_on"]
    valid = dogs.set_index("concept")["S_val"]
    assert valid["dog"] > 0 and valid["hay"] > 0 and valid["mud"] < 0  # which of the two is the dog, people have to say


def test_without_a_bug_nothing_is_a_confounder():
    for seed in range(10):
        frame = evidence_of(planted(bug=False, seed=seed), EvidenceRules(), seed=0)
        assert not frame["confounder"].any() and not frame["relied_on"].any()


def test_an_effect_that_was_measured_has_to_be_there():
    audited = planted()
    names = audited.concepts.names
    effects = np.full((len(audited.labels), len(names)), np.nan)
    wrong = audited.predictions != audited.labels
    for value, stays in ((0.4, True), (0.01, False)):
        effects[wrong, names.index("hay")] = value
        frame = evidence_of(audited, EvidenceRules(), seed=0, effects=effects)
        row = frame[(frame["class"] == "cat") & (frame["rival"] == "dog") & (frame["concept"] == "hay")].iloc[0]
        assert row["effect"] == pytest.approx(value) and bool(row["confounder"]) is stays


def test_groups_are_capped_and_the_surest_failures_stay():
    audited = planted()
    group = next(g for g in groups_of(audited, EvidenceRules(failures=5, controls=3), 0) if (g.true, g.rival) == (0, 1))
    assert len(group.failures) == 5 and len(group.controls) == 3
    failures = np.flatnonzero((audited.labels == 0) & (audited.predictions == 1))
    surest = failures[np.argsort(-audited.confidence[failures])[:5]]
    assert set(group.failures) == set(surest)
    assert (audited.predictions[group.controls] == 0).all() and (audited.labels[group.controls] == 0).all()


def test_too_few_failures_are_no_evidence():
    audited = planted()
    audited.predictions[:] = audited.labels
    frame = evidence_of(audited, EvidenceRules(), seed=0)
    assert isinstance(frame, pd.DataFrame) and frame.empty and list(frame.columns) == list(MEANINGS)


@pytest.mark.parametrize(
    ("limit", "key"), [({"least": 0}, "evidence.least"), ({"q": 0.0}, "evidence.q"), ({"rho": -1}, "evidence.rho")]
)
def test_limits_that_make_no_sense(limit, key):
    with pytest.raises(ConfigError, match=key):
        EvidenceRules(**limit)
