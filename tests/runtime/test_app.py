"""The command line: fast answers, one line for every mistake, exit status 1."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from aaca.runtime.app import run_id
from aaca.runtime.cli import main
from aaca.runtime.errors import nearest
from aaca.runtime.files import atomic_path, write_text

AACA = [sys.executable, "-c", "import sys; from aaca.runtime.cli import main; sys.exit(main())"]


def aaca(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AACA, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("debug", "--help"), ("debug", "--cfg", "job")])
def test_quick_answers_import_nothing_heavy_and_write_nothing(arguments, tmp_path):
    """What keeps them under 1.5 s; `make bench` prints the seconds."""
    done = aaca(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list(tmp_path.iterdir())
    loaded = "import sys; from aaca.runtime.cli import main; import contextlib\n"
    loaded += f"with contextlib.suppress(SystemExit): main({list(arguments)!r})\n"
    loaded += "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    probe = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, cwd=tmp_path)
    assert probe.returncode == 0, probe.stderr


def test_the_overview_names_every_job_and_method(tmp_path):
    shown = aaca(cwd=tmp_path).stdout
    for name in (
        "debug",
        "compare",
        "data verify",
        "none",
        "duplicate",
        "s_random",
        "s_similarity",
        "s_active_learning",
    ):
        assert name in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("debgu",), "no job 'debgu'; nearest valid: debug"),
        (("debug", "method=s_simlarity"), "method: no option 's_simlarity'; nearest valid: s_similarity"),
        (("debug", "selector=entopy"), "selector: no option 'entopy'; nearest valid: entropy"),
        (("debug", "mehtod=s_random"), "mehtod: unknown key; nearest valid: method"),
        (
            ("debug", "discovery=null"),
            "discovery: null is no option; leave it out (~discovery takes it out of a preset)",
        ),
        (("debug", "debugset.per_clas=3"), "debugset.per_clas: unknown key; nearest valid: per_class"),
        (("caption", "graph.images=3"), "graph.images: unknown key; nearest valid: graphs.images"),
        (("debug", "recipe.epoch=3"), "recipe.epoch: unknown key; nearest valid: epochs"),
        (("debug", "selection_rul=best"), "selection_rul: unknown key; nearest valid: selection_rule"),
        (("debug", "model=vit_base", "model.chekpoint=a"), "model.chekpoint: unknown key; nearest valid: checkpoint"),
        (("debug", "debugset.per_class=700"), "no class of the pool has more than 600"),
        (("debug", "selector=bald"), "selector.mc_samples: stochastic passes need dropout"),
        (("debug", "+debugset.per_clas=3"), "debugset.per_clas: unknown key; nearest valid: per_class"),
        (("debug", "+recipe.epoch=3"), "recipe.epoch: unknown key; nearest valid: epochs"),
        (("debug", "debugset.per_class=many"), "debugset.per_class: expected a valid integer, got 'many'"),
        (("debug", "model.name=resnet19"), "model.name: timm has no model 'resnet19'; nearest valid: "),
        (("debug", "model=vit_base", "model.checkpoint=nowhere.pth"), "model.checkpoint: no file nowhere.pth"),
        (("debug", "dataset=imagefolder"), "dataset.root: Missing mandatory value"),
        (("debug", "dataset=imagefolder", "dataset.root=nowhere"), "dataset.root"),
        (("debug", "selector._target_=os.system"), "selector._target_: 'os.system' is not allowed"),
        (("debug", "recipe.epochs=0"), "recipe.epochs: expected at least 1, got 0"),
        (("debug", "trainer=gpu"), "trainer.accelerator: 'gpu' was asked for"),
        (("debug", "seed=-1"), "seed: expected greater than or equal to 0, got -1"),
        (("compare",), "aaca debug"),
    ],
)
def test_every_mistake_is_one_line_and_status_1(arguments, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["aaca"])
    before = dict(os.environ)
    status = main(list(arguments))
    of_others = {
        "PYTORCH_NVML_BASED_CUDA_CHECK",
        "TORCHINDUCTOR_CACHE_DIR",
    }  # set by Lightning, torch when first imported
    assert {name: value for name, value in os.environ.items() if name not in of_others - set(before)} == before
    shown = capfd.readouterr().err
    lines = [line for line in shown.splitlines() if line.strip()]
    assert status == 1
    assert said in shown
    assert len(lines) == 1, shown
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "handed"),
    [
        (["caption", "-m", "explain", "seed=0,1"], ["-m", "action=explain", "seed=0,1"]),
        (["caption", "seed=0", "explain"], ["seed=0", "action=explain"]),
        (["caption", "--cfg", "job", "explain"], ["--cfg", "job", "action=explain"]),
        (["caption", "-c", "job", "~preset"], ["-c", "job", "~preset"]),
        (["debug", "-m", "seed=0"], ["-m", "seed=0"]),
        (["pretrain", "--dry-run", "clip"], ["dry_run=true", "network=clip"]),
    ],
)
def test_the_first_bare_word_is_what_a_job_does(arguments, handed, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["aaca"])
    monkeypatch.setattr("importlib.import_module", lambda name: SimpleNamespace(main=lambda: 0))
    assert main(arguments) == 0 and sys.argv[1:] == handed


def test_run_folders_are_named_by_what_was_asked_for():
    assert run_id([]) == "default"
    assert run_id(["seed=1", "method=s_random", "paths.root=/x", "logger=wandb"]) == "method=s_random,seed=1"
    assert run_id(["method=s_random", "seed=1"]) == run_id(["seed=1", "method=s_random"])
    hostile = run_id(["method=../../x", "study=" + "<script>" * 50])
    assert "/" not in hostile
    assert "<" not in hostile
    assert len(hostile) < 130
    assert run_id(["study=a b"]) != run_id(["study=a;b"])


def test_nearest_lists_close_names_or_all():
    assert nearest("similarty", ["similarity", "random"]) == "nearest valid: similarity"
    assert nearest("zzz", ["a", "b"]) == "valid: a, b"


def test_an_atomic_file_is_whole_or_absent(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ValueError, match="no"), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ValueError("no")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
