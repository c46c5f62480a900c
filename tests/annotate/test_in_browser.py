"""A person at the page, in a real browser: ten tasks, by mouse and by keys; two people at once; kill -9 in between."""

import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aaca.annotate.pack import Pack
from aaca.annotate.task import Answer, check_answers, load_lines
from aaca.annotate.web.page import static_page
from tests.annotate.toys import CLASSES, EVIL, pack_folder

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SERVE = (
    "import sys; from pathlib import Path; from aaca.annotate.book import AnswerBook\n"
    "from aaca.annotate.pack import Pack\n"
    "from aaca.annotate.web.server import serve\n"
    "serve(Pack.load(Path(sys.argv[1])), AnswerBook(Path(sys.argv[2])), int(sys.argv[3]))\n"
)


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=[*FLAGS, "--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(pack: Path, answers: Path, port: int = 0):
    """(address, process) of a server of its own."""
    command = [sys.executable, "-c", SERVE, str(pack), str(answers), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+", line)[0], process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def opened(browser, address: str, name: str) -> Any:
    """A browser of one's own (no storage shared) at the page, with a name given."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.fill("#who", name)
    page.press("#who", "Tab")
    page.wait_for_selector("#work:not([hidden])")
    return page


def count(page, number: int, of: int) -> None:
    page.locator("#count", has_text=f" of {of} · {number} answered").wait_for()  # waiting by eval is against the CSP


def by_keys(page) -> None:
    """One answer: the first candidate, relevance 2, the third tells the class."""
    page.click("body", position={"x": 2, "y": 2})
    for key in ("a", "2", "Shift+C", "Enter"):
        page.keyboard.press(key)


def test_ten_tasks_by_one_person(browser, tmp_path):
    pack = pack_folder(tmp_path / "pack", 10)
    answers = tmp_path / "answers.jsonl"
    with served(pack, answers) as (address, _):
        page = opened(browser, address, "Ann Example")
        count(page, 0, 10)
        assert CLASSES[0] in page.inner_text("#facts") and page.title() == "aaca annotate"  # shown as text
        page.click("#contents >> text=sand")
        page.click("#relevances >> text=1")
        page.click("#valids >> text=beak")
        page.fill("#valid", "long neck")
        page.press("#valid", "Enter")
        page.click("#overlays >> text=true class")
        assert page.get_attribute("#overlay", "src") == page.evaluate("tasks[at].pictures['true']")
        page.click("#overlays >> text=no highlight")
        assert not page.is_visible("#overlay")
        page.click("#save")
        count(page, 1, 10)
        page.click("#save")  # nothing said yet
        page.wait_for_selector("#said.bad")
        assert "What does the highlighted part show?" in page.inner_text("#said")
        page.fill("#content", "a crane's nest")
        page.click("#kinds >> text=relation")
        page.click("#relevances >> text=4")
        page.click("#save")
        count(page, 2, 10)
        page.click("#flags >> text=cannot tell")
        page.click("#save")
        count(page, 3, 10)
        page.keyboard.press("u")  # undo: back to the third, and another answer
        page.locator("#count", has_text="3 of 10").wait_for()
        page.click("#flags >> text=label wrong")
        page.click("#save")
        page.locator("#count", has_text="4 of 10").wait_for()
        for done in range(4, 11):
            by_keys(page)
            count(page, done, 10)
        assert "Thank you" in page.inner_text("#said")
        assert page.wrong == [] and {url.split("/")[2] for url in page.asked if not url.startswith("data:")} == {
            address.split("/")[2]
        }
    given = load_lines(answers, Answer)
    check_answers(given, Pack.load(pack).tasks, "answers")
    last = {answer.task_id: answer for answer in given}
    assert len(given) == 11 and len(last) == 10  # the undone one is there, too
    first, second, third = (last[task.task_id] for task in Pack.load(pack).tasks[:3])
    assert (first.content, first.type, first.relevance, first.valid) == ("sand", "background", 1, ("beak", "long neck"))
    assert (second.content, second.type, second.relevance) == ("a crane's nest", "relation", 4)
    assert third.flag == "label wrong" and third.content == ""
    assert all(answer.annotator == "Ann Example" and answer.seconds >= 0 for answer in given)
    assert last["failure/image-4"].content == "sand" and last["failure/image-4"].valid == ("beak",)


def test_two_people_at_once_and_a_server_that_dies(browser, tmp_path):
    tasks = 50
    pack, answers = pack_folder(tmp_path / "pack", tasks), tmp_path / "answers.jsonl"
    with served(pack, answers) as (address, process):
        port = int(address.split(":")[2].split("/")[0])
        people = [opened(browser, address, name) for name in ("ann", "ben")]
        for done in range(1, 21):
            for page in people:
                by_keys(page)
                count(page, done, tasks)
        process.kill()
        process.wait()
        by_keys(people[0])  # nobody takes it
        people[0].wait_for_selector("#said.bad")
        assert "kept in this browser" in people[0].inner_text("#said")
    with served(pack, answers, port) as (address, _):
        for page, known in zip(people, (21, 20), strict=True):
            page.goto(address)  # the name is known, and so is the answer that nobody took
            page.wait_for_selector("#work:not([hidden])")
            count(page, known, tasks)
            for done in range(known + 1, tasks + 1):
                by_keys(page)
                count(page, done, tasks)
    given = load_lines(answers, Answer)
    assert len({(answer.annotator, answer.task_id) for answer in given}) == 2 * tasks == len(given)
    assert {answer.content for answer in given} == {"sand"}


def test_the_static_file_works_from_disk(browser, tmp_path):
    pack = pack_folder(tmp_path / "pack", 3)
    (tmp_path / "annotate.html").write_text(static_page(Pack.load(pack)), encoding="utf-8")
    page = opened(browser, (tmp_path / "annotate.html").as_uri(), "ann")
    assert EVIL in page.inner_text("#facts")
    for done in range(1, 4):
        by_keys(page)
        count(page, done, 3)
    page.reload()  # answers stay in the browser
    page.wait_for_selector("#work:not([hidden])")
    count(page, 3, 3)
    with page.expect_download() as download:
        page.click("#download")
    saved = tmp_path / "answers.jsonl"
    download.value.save_as(saved)
    given = load_lines(saved, Answer)
    check_answers(given, Pack.load(pack).tasks, "answers")
    assert len(given) == 3 and page.wrong == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_it_fits_a_small_screen(browser, tmp_path):
    with served(pack_folder(tmp_path / "pack", 2), tmp_path / "answers.jsonl") as (address, _):
        page = opened(browser, address, "ann")
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_what_the_numbers_blame_is_filled_in_and_shown_without_highlight(browser, tmp_path):
    folder = pack_folder(tmp_path / "pack", 3)
    first, *rest = (folder / "tasks.jsonl").read_text().splitlines()
    asked = {**json.loads(first), "kind": "suspect", "about": "beak"}
    (folder / "tasks.jsonl").write_text("\n".join([json.dumps(asked), *rest]) + "\n")
    with served(folder, tmp_path / "answers.jsonl") as (address, _):
        page = opened(browser, address, "ann")
        page.locator("#why", has_text="The numbers blame “beak” here").wait_for()
        assert page.input_value("#content") == "beak" and not page.is_visible("#overlay")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        count(page, 1, of=3)
        page.wait_for_selector("#overlay", state="visible")  # the next task is about what is highlighted
        page.context.close()
    (answer,) = load_lines(tmp_path / "answers.jsonl", Answer)
    assert (answer.content, answer.type, answer.relevance) == ("beak", "attribute", 1)
