"""The report of a real sweep in a real browser: complete, self-contained, no error, fit for a small screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.toys import METHODS

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture
def page(sweep: Path) -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=[*FLAGS, "--no-sandbox"])
        page = browser.new_page(viewport={"width": 800, "height": 900})
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
        page.goto((sweep / "report.html").as_uri())
        yield page
        browser.close()


def test_the_report_is_whole_and_asks_for_nothing_else(page):
    assert page.wrong == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    text = page.inner_text("body")
    for method in METHODS:
        assert method in text
    broken = page.evaluate("[...document.images].filter(image => !image.complete || !image.naturalWidth).length")
    assert broken == 0
    assert page.evaluate("document.images.length") > 10


def test_the_page_does_not_scroll_sideways_on_a_small_screen(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
