"""A run's folder belongs to one config; another one is refused with what differs, or put in its place when forced."""

from dataclasses import replace

import pytest

from aaca.runtime.errors import ConfigError
from aaca.runtime.failures import clear, failure_in, failures, record
from aaca.runtime.files import read_json
from aaca.runtime.run_folder import claim
from aaca.runtime.trial import Trial

DATASET = {"name": "squares"}


def trial(folder, **changes) -> Trial:
    config = {"recipe": {"epochs": 3, "lr": 0.1}, "paths": {"root": "here"}, "method": {"name": "none"}, "seed": 7}
    return Trial("debug", {**config, **changes}, str(folder), {}, ["method=none"], "sweep-1")


def test_the_same_config_is_the_same_and_a_changed_one_is_refused_with_the_keys(tmp_path):
    folder = tmp_path / "run"
    first = claim(trial(folder), DATASET, force=False)
    assert claim(trial(folder), DATASET, force=False) == first
    assert claim(trial(folder, paths={"root": "moved"}), DATASET, force=False) == first
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    changed = trial(folder, recipe={"epochs": 4, "lr": 0.1})
    with pytest.raises(ConfigError, match=r"resume\.force: .* another config .*recipe\.epochs: 3 → 4\); resume\.force"):
        claim(changed, DATASET, force=False)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    forced = claim(changed, DATASET, force=True)
    assert forced != first
    assert claim(changed, DATASET, force=False) == forced
    assert claim(changed, {"name": "circles"}, force=False) not in (first, forced)


def test_every_rank_is_noted_with_its_hashes(tmp_path):
    this = trial(tmp_path)
    claim(this, DATASET, force=False)
    (rank,) = read_json(tmp_path / "run.json")["ranks"]
    assert rank["rank"] == 0
    assert rank["config"] == this.config_sha256 == read_json(tmp_path / "run.json")["config"]


def test_a_failure_is_noted_until_a_later_attempt_succeeds(tmp_path):
    one, two = trial(tmp_path / "one"), replace(trial(tmp_path / "two"), sweep="sweep-2")
    record(one, "loss is nan", "Traceback …")
    record(two, "no memory")
    assert [failure.reason for failure in failures(tmp_path)] == ["loss is nan", "no memory"]
    assert [failure.name for failure in failures(tmp_path, "sweep-2")] == ["method=none"]
    found = failure_in(tmp_path / "one")
    assert found is not None
    assert (found.method, found.seed) == ("none", 7)
    assert (tmp_path / "one" / "traceback.txt").read_text() == "Traceback …"
    clear(tmp_path / "one")
    assert failure_in(tmp_path / "one") is None
    assert list((tmp_path / "one").iterdir()) == []
    (tmp_path / "two" / "failed.json").write_text("{")
    assert "unreadable" in failures(tmp_path)[0].reason
