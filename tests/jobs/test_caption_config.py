"""What the job `caption` refuses, in one line, before anything is made."""

import re

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from aaca.evaluate.captions import external
from aaca.runtime.config import load_config, plain
from aaca.runtime.errors import ConfigError
from experiments.caption_config import CaptionConfig
from experiments.caption_run import without_presets
from tests.graph_toys import FOLDERS, write_tree
from tests.jobs.caption_runs import refused


@pytest.fixture(scope="module")
def composed() -> dict[str, DictConfig]:
    """The config by its graphs."""
    with initialize_config_module("aaca.conf", version_base="1.3"):
        return {
            name: compose(
                "caption", overrides=[f"graphs={name}", "paths.root=x", *["graphs.root=tree"] * (name == "ega")]
            )
            for name in ("stampscenes", "shapes", "ega")
        }


HERE = __file__


@pytest.mark.parametrize(
    ("graphs", "changes", "message"),
    [
        ("stampscenes", {"action": "image"}, "image: missing"),
        ("stampscenes", {"image": HERE}, "image, asg: an image and its scene graph go together"),
        ("stampscenes", {"asg": HERE}, "image, asg: an image and its scene graph go together"),
        ("shapes", {"action": "image", "image": HERE, "asg": HERE}, "graphs: the features of these graphs were made"),
        ("ega", {"action": "filter"}, "filter.noise: only planted in embedded graphs"),
        ("ega", {"action": "filter", "filter.noise": 0.0}, "filter.records: missing"),
        ("shapes", {"filter.records": "nowhere.csv"}, "filter.records: no file nowhere.csv"),
        ("shapes", {"filter.records": HERE, "filter.by": "swap"}, "filter.records: given, but filter.by is swap"),
        ("shapes", {"filter.threshold": 1.5}, "filter.threshold: "),
        ("shapes", {"filter.keep": -0.1}, "filter.keep: "),
        ("shapes", {"captions": "nowhere.csv"}, "captions: no file nowhere.csv"),
        ("ega", {"graphs.kind": "cocoa"}, "graphs.kind: 'cocoa' is not a choice; nearest valid: coco"),
        ("stampscenes", {"graphs.regions": [3, 2]}, "regions"),
        ("shapes", {"training.decode": "beam", "training.width": 0}, "width: 0; expected at least 1"),
        ("shapes", {"training.align_weight": 0.5}, "align_weight: 0.5 weighs nothing"),
        ("shapes", {"captioner.hidden": 0}, "captioner.hidden: "),
        ("shapes", {"explain.by": "gradient"}, "explain.by: 'gradient'"),
        ("shapes", {"on_missing_box": "guess"}, "on_missing_box: 'guess'"),
        ("shapes", {"action": "invent"}, "action: 'invent'"),
    ],
)
def test_values_that_do_not_fit_are_named(graphs, changes, message, composed):
    config = composed[graphs].copy()
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        load_config(without_presets(plain(config)), CaptionConfig)
    assert "\n" not in str(raised.value)
    load_config(without_presets(plain(composed[graphs])), CaptionConfig)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image"], "image: missing"),
        (["score", "graphs=ega", "graphs.root=nowhere"], "graphs.root: nothing at nowhere"),
        (["score", "graphs=ega", "graphs.root=."], "annotation: no such folder"),
        (["score", "graphs=coco"], "graphs.root: "),
        (["score", "captioner=rgcn_memories"], "captioner"),
        (["score", "graphs=shapes", "reference_index=vall"], "reference_index: 'vall'; nearest valid: val"),
        (["filter", "graphs=shapes", "reference_index=vall"], "reference_index: 'vall'; nearest valid: val"),
        (["score", "graphs=shapes", "score.metrics=[metoer]"], "score.metrics"),
        (["score", "graphs=shapes", "score.metrics=[clip_score]"], "score.clip_weights: missing"),
        (
            ["score", "graphs=shapes", "score.metrics=[clip_score]", "score.clip_weights=nowhere"],
            "score.metrics: clip_score: ",
        ),
        (["filter", "graphs=shapes", "filter.set=tst"], "filter.set: 'tst'"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_made(arguments, message, run, tmp_path):
    assert message in refused(run, *arguments)
    assert not list(tmp_path.glob("refused/stages/*"))


def test_a_metric_that_cannot_be_had_here_is_refused_before_anything_is_made(run, tmp_path, monkeypatch):
    monkeypatch.setattr(external, "_package", lambda: None)
    said = refused(run, "score", "graphs=shapes", "score.metrics=[meteor]")
    assert said.startswith("score.metrics: meteor: needs the Python package pycocoevalcap")
    assert not list(tmp_path.glob("refused/stages/*")) and not list(tmp_path.glob("refused/caption/*/run.json"))


def test_sets_of_a_released_layout_are_known_before_anything_is_made(run, tmp_path):
    write_tree(tmp_path, "ega", images=2)
    released = ["score", "graphs=ega", f"graphs.root={tmp_path / FOLDERS['ega']}"]
    assert "reference_index: 'val_sup'; nearest valid: val_sub" in refused(run, *released, "reference_index=val_sup")
    (tmp_path / FOLDERS["ega"] / "annotation/regionfiles/val_sub_opt_names.npy").unlink()
    said = refused(run, *released, "reference_index=val_sub_opt")
    assert said.startswith("graphs: set 'val_sub_opt': no file")
    clip = refused(run, *released, "score.metrics=[clip_score]", "score.clip_weights=nowhere")
    assert clip.startswith("score.metrics: clip_score: these graphs come without images")
    assert not list(tmp_path.glob("refused/stages/*"))
