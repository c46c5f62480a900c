"""What the job `caption` refuses, in one line, before anything is made."""

import re
import shlex
from pathlib import Path

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
        ("shapes", {"action": "filter", "filter.records": "nowhere.csv"}, "filter.records: no file nowhere.csv"),
        (
            "shapes",
            {"action": "filter", "filter.records": HERE, "filter.by": "swap"},
            "filter.records: given, but filter.by is swap",
        ),
        ("shapes", {"filter.records": HERE}, "filter.records: given, but action is score; expected action=filter"),
        ("stampscenes", {"image": HERE, "asg": HERE}, "image: given, but action is score; expected action=image"),
        ("shapes", {"region": 0}, "region: given, but action is score; expected action=image"),
        (
            "shapes",
            {"action": "explain", "captions": HERE},
            "captions: given, but action is explain; expected action=score",
        ),
        (
            "shapes",
            {"action": "explain", "reference_index": "val"},
            "reference_index: given, but action is explain; expected action=score or filter or regraph",
        ),
        (
            "shapes",
            {"action": "regraph", "rationale.foreign": 1, "rationale.test": True},
            "rationale.test: given, but action is regraph; expected action=score",
        ),
        ("shapes", {"action": "filter", "score.metrics": ["meteor"]}, "score.metrics: given, but action is filter"),
        ("shapes", {"score.clip_weights": "clip"}, "score.clip_weights: given, but not asked for"),
        ("shapes", {"regraph.by": "attention", "regraph.threshold": 1.0}, "regraph.threshold: 1.0 with regraph.by="),
        ("shapes", {"regraph.steps": 1}, "regraph.steps: "),
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


def loaded(*overrides: str) -> CaptionConfig:
    with initialize_config_module("aaca.conf", version_base="1.3"):
        return load_config(without_presets(plain(compose("caption", ["paths.root=x", *overrides]))), CaptionConfig)


def test_what_counts_as_unused_hangs_on_how_nodes_are_scored():
    methods = ("attention", "gradient_x_input", "integrated_gradients", "occlusion")
    found = {by: loaded(f"regraph.by={by}").regraph.least for by in methods}
    assert found == dict.fromkeys(methods, 1.0) | {"attention": 0.2}
    assert loaded("regraph.by=attention", "regraph.threshold=0.4").regraph.least == 0.4
    assert loaded("regraph.threshold=0").regraph.least == 0


@pytest.mark.parametrize("graphs", [[], ["graphs=shapes"], ["preset=asg2cap_vg", "graphs.root=tree"]])
def test_a_smoke_run_is_small_unless_you_say_otherwise(graphs):
    small, whole = loaded("size=smoke", *graphs), loaded(*graphs)
    assert small.training.epochs == 2 < whole.training.epochs and small.explain.samples < whole.explain.samples
    assert loaded("size=smoke", "training.epochs=3", *graphs).training.epochs == 3
    if "graphs.root=tree" not in graphs:
        assert sum(small.graphs.images.values()) < 50 and whole.graphs.images is None


COMMANDS = [
    shlex.split(line.strip(), comments=True)[2:]
    for line in (Path(__file__).parents[2] / "README.md").read_text().splitlines()
    if line.startswith("    aaca caption")
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_of_the_readme_are_taken(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    for name in ("theirs.csv", "photo.png", "graph.json", "answers.json"):
        Path(name).touch()
    action = [f"action={word}" for word in command if "=" not in word and word != "-m"]
    loaded(*action, *(word.split(",")[0] for word in command if "=" in word))
    assert len(COMMANDS) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0", "paint"], "action: 'paint'"),
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
