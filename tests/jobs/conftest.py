"""Running jobs as the command line does, in this process: imports are paid once."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aaca.runtime.cli import main
from tests.toys import METHODS, SMOKE

Run = Callable[..., tuple[int, str]]


def command(monkeypatch: pytest.MonkeyPatch, cwd: Path, arguments: Sequence[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["aaca"])
    monkeypatch.chdir(cwd)
    return main(list(arguments))


@pytest.fixture
def run(monkeypatch, tmp_path, capfd) -> Run:
    """run("debug", "method=none", …) → (exit status, everything printed)."""

    def call(*arguments: str) -> tuple[int, str]:
        status = command(monkeypatch, tmp_path, arguments)
        captured = capfd.readouterr()
        return status, captured.out + captured.err

    return call


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """The five methods once, at smoke size, in one sweep, and their comparison; the folder of `paths.root`."""
    root = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as monkeypatch:
        methods = "method=" + ",".join(METHODS)
        assert command(monkeypatch, root, ["debug", "-m", methods, *SMOKE, f"paths.root={root}"]) == 0
        assert command(monkeypatch, root, ["compare", f"paths.root={root}"]) == 0
    return root
