import pytest


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without charts, for tests that are not about them: charts take a second each."""
    monkeypatch.setattr("aaca.evaluate.report.svg", lambda figure: "<svg/>")
    monkeypatch.setattr("aaca.evaluate.report.FIGURES", dict.fromkeys(("slices", "repairs", "cost"), lambda *_: None))
