"""The job `caption` on two ranks: each action says what it says on one, once, of a captioner that is the same."""

from pathlib import Path

import pandas as pd
import pytest

from aaca.runtime.files import read_json
from tests.jobs.caption_runs import SHAPES, made, ran

pytestmark = pytest.mark.slow
TWO = tuple("trainer=ddp_cpu" if argument == "trainer=cpu" else argument for argument in SHAPES)
SMALL = ("graphs.images={trn:7,val:2,tst:5}", "training.batch_size=4", "training.epochs=1")
STILL = "training.lr=1e-12"  # lost beside a weight: the captioner is the drawn one, on however many ranks
LEAK = ("rationale.foreign=1", "rationale.test=true", "training.align=leak", "training.align_weight=1")
ACTIONS = {
    "score": (*LEAK, "score.diversity=3", "score.examples=2"),
    "explain": ("explain.samples=12", "explain.pictures=2", "explain.steps=2"),
    "filter": ("filter.keep=0.6",),
    "filter test": ("filter.set=test", "filter.by=swap", "filter.keep=0.6"),
    "regraph": ("regraph.samples=12",),
}
FILES = {
    "score": ("captions.csv", "table.csv"),
    "explain": ("words.csv", "pointing.csv"),
    "filter": ("ease.csv", "filter.csv", "filter_differences.csv"),
    "filter test": ("ease.csv", "filter_effect.csv"),
    "regraph": ("regraph.csv", "facts.csv"),
}
TITLES = {
    "score": "captions of tst",
    "explain": "the one they name",
    "filter": "by what they were learnt from",
    "filter test": "captions of tst kept",
    "regraph": "planted facts, found",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Where what does not hang on the number of ranks is made once."""
    return tmp_path_factory.mktemp("ranks")


def below(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("action", ACTIONS)
def test_two_ranks_find_what_one_does(action, root, run):
    given = (action.split()[0], *SMALL, STILL, *ACTIONS[action])
    one, said = ran(run, root, given[0], *SHAPES, *given[1:])
    two, again = ran(run, root, given[0], *TWO, *given[1:])
    assert one != two and below(one) == below(two) and {"captioner", "captions tst"} & set(made(again))
    for name in FILES[action]:
        expected, found = pd.read_csv(one / name), pd.read_csv(two / name)
        assert len(expected) > 0
        pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-4)
    assert said.count(TITLES[action]) == again.count(TITLES[action]) == 1  # one rank prints


def test_two_ranks_train_off_foreign_nodes_and_the_leak_is_of_both_halves(root, run):
    folder, said = ran(run, root, "score", *TWO, *SMALL, *LEAK, "training.epochs=3", "score.diversity=0")
    found = read_json(folder / "scores.json")
    assert 0 < found["leak"] < 100 and "captioner" in made(said)
    devices = [read_json(file)["inputs"]["devices"] for file in root.glob("stages/captioner/*/manifest.json")]
    assert 2 in devices
