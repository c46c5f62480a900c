"""wandb offline: tables, images and tags are recorded; a key in the environment reaches no file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from aaca.evaluate.dashboard import Files, Wandb
from aaca.runtime import secrets
from aaca.runtime.errors import AacaError

KEY = "f4ke" * 10  # forty characters, as wandb's keys have


def test_plain_files_need_no_logger_and_write_nothing_themselves(tmp_path):
    files = Files()
    files.begin(tmp_path, "study", [], {})
    with files.loop("f0", tmp_path / "stage") as loggers:
        assert loggers == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    wandb = Wandb(project="test", mode="offline")
    wandb.begin(tmp_path, "my-study", ["method=s_random", "x" * 200], {"seed": 7})
    return wandb


def test_offline_runs_hold_study_stage_tags_tables_and_images_but_no_key(board, tmp_path):
    with board.loop("f0", tmp_path / "stage") as loggers:
        assert isinstance(loggers[0], WandbLogger)
        run = loggers[0].experiment
        assert (run.group, run.job_type, run.offline) == ("my-study", "f0", True)
        assert run.tags == ("method=s_random", "x" * 64)
        assert run.config["seed"] == 7
        loggers[0].log_metrics({"loss": 1.0}, step=1)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "sheet.png")
    frame = pd.DataFrame({"method": ["a", "b"], "accuracy": [0.1, 0.9]})
    board.record("outcome", {"accuracy": 0.9}, {"comparison": frame}, {"sheet": tmp_path / "sheet.png"})
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    media = {path.name for folder in runs for path in folder.rglob("*") if "media" in path.parts}
    assert any(name.endswith(".png") for name in media)
    assert any("pictures" in name for name in media)
    assert any("comparison" in name for name in media)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_without_a_key_auto_means_offline(board, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    board.mode = "auto"
    board.begin(tmp_path, "s", [], {})
    with board.loop("f0", Path(tmp_path / "stage")) as loggers:
        assert loggers[0].experiment.offline
    (tmp_path / "none").write_text("machine")
    with pytest.raises(AacaError, match="not a readable netrc"), board.loop("f0", tmp_path):
        pass


def test_a_loop_that_fails_ends_its_run(board, tmp_path):
    with pytest.raises(ValueError, match="no"), board.loop("f0", tmp_path / "stage") as loggers:
        run = loggers[0].experiment
        raise ValueError("no")
    with pytest.raises(Exception, match="finished"):
        run.log({"loss": 1.0})


def test_an_interrupted_loop_goes_on_in_the_same_wandb_run(board, tmp_path):
    ids = []
    for _ in range(2):
        with board.loop("f0", tmp_path / "stage") as (logger,):
            ids.append(logger.experiment.id)
    assert ids[0] == ids[1]
    with board.loop("f0", tmp_path / "other") as (logger,):
        assert logger.experiment.id != ids[0]


def test_secrets_of_a_config_reach_no_run(board, tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "_learnt", set())
    secrets.learn({"dataset": {"token": "planted-secret"}})
    board.begin(tmp_path, "s", ["note=planted-secret"], {"dataset": {"token": "planted-secret"}})
    with board.loop("f0", tmp_path / "stage") as (logger,):
        assert logger.experiment.tags == ("note=(secret)",)
        assert logger.experiment.config["dataset"]["token"] == "(secret)"
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"planted-secret" in file.read_bytes()]
