"""The server: only with its token, from its own page and host; bad requests end in one line and change nothing."""

import json

import pytest
from starlette.testclient import TestClient

from aaca.annotate.book import AnswerBook
from aaca.annotate.pack import Pack
from aaca.annotate.web.page import static_page
from aaca.annotate.web.server import make_app
from tests.annotate.toys import EVIL, pack_folder

TOKEN = {"x-aaca-token": "secret"}
GOOD = {"annotator": "ann", "task_id": "failure/image-0", "type": "background", "content": "sand", "relevance": 1}
GOOD |= {"valid": ["beak"], "flag": "", "seconds": 2.5}


@pytest.fixture
def book(tmp_path):
    book = AnswerBook(tmp_path / "answers.jsonl")
    yield book
    book.close()


@pytest.fixture
def client(tmp_path, book):
    pack = Pack.load(pack_folder(tmp_path / "pack"))
    return TestClient(make_app(pack, book, 8765, "secret"), base_url="http://127.0.0.1:8765")


def test_tasks_pictures_and_answers_come_and_go(client, book):
    found = client.post("/tasks", json={"annotator": "ann"}, headers=TOKEN).json()
    assert len(found["tasks"]) == 10 and found["answers"] == {}
    assert found["tasks"][0]["class"] == EVIL and "share" not in json.dumps(found["tasks"])  # people shall look
    pictures = client.post("/picture", json={"index": 3}, headers=TOKEN).json()
    assert set(pictures) == {"image", "predicted", "true", "contrast", "controls"}
    assert client.post("/answer", json=GOOD, headers=TOKEN).json() == {"saved": 1}
    kept = book.of("ann")["failure/image-0"]
    assert (kept.image_id, kept.class_, kept.rival) == ("image-0", EVIL, "bird") and kept.ts
    again = client.post("/tasks", json={"annotator": "  ann "}, headers=TOKEN).json()
    assert again["answers"]["failure/image-0"]["content"] == "sand"
    assert client.post("/tasks", json={"annotator": "ben"}, headers=TOKEN).json()["answers"] == {}


@pytest.mark.parametrize("path", ["/tasks", "/picture", "/answer"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-aaca-token": "guess"},
        {**TOKEN, "origin": "http://evil.example"},
        {**TOKEN, "origin": "null"},
        {**TOKEN, "host": "evil.example:8765"},  # a name that was pointed at this machine
    ],
)
def test_nobody_else_may_ask(client, book, path, headers):
    assert client.post(path, json=GOOD, headers=headers).status_code == 403
    assert len(book) == 0


def test_the_page_needs_the_token_and_may_load_nothing_from_elsewhere(client):
    assert client.get("/").status_code == 403 and client.get("/?token=guess").status_code == 403
    page = client.get("/?token=secret")
    policy = page.headers["content-security-policy"]
    assert page.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    assert "no-store" in page.headers["cache-control"]
    assert client.get("/?token=secret", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/etc/passwd", "/answers.jsonl", "/tasks/0", "/picture/../../etc/passwd", "/docs"])
def test_there_are_no_other_paths(client, path):
    assert client.get(path, headers=TOKEN).status_code in (404, 405)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevance": 6}, "relevance"),
        ({"relevance": "much"}, "relevance"),
        ({"task_id": "failure/../../x"}, "task_id: no such task"),
        ({"annotator": ""}, "annotator"),
        ({"annotator": "x" * 61}, "annotator"),
        ({"valid": list("abcdef")}, "valid"),
        ({"flag": "boring"}, "flag"),
        ({"more": 1}, "more: unknown field"),
        ({"image_id": "image-5", "class": "other"}, None),  # what the server knows better is not asked for
    ],
)
def test_answers_are_checked(client, book, change, message):
    reply = client.post("/answer", json={**GOOD, **change}, headers=TOKEN)
    if message is None:
        assert reply.status_code == 200 and book.of("ann")["failure/image-0"].image_id == "image-0"
    else:
        assert reply.status_code == 400 and message in reply.json()["error"] and len(book) == 0


@pytest.mark.parametrize("body", [b"{", b"[]", b"{" + b" " * 70_000])
def test_requests_that_are_none(client, book, body):
    assert client.post("/answer", content=body, headers=TOKEN).status_code == 400 and len(book) == 0


@pytest.mark.parametrize("index", [-1, 10, True, "0", None])
def test_pictures_by_position_only(client, index):
    assert client.post("/picture", json={"index": index}, headers=TOKEN).status_code == 400


def test_names_cannot_leave_the_data_they_stand_in(tmp_path):
    page = static_page(Pack.load(pack_folder(tmp_path / "pack")))
    assert EVIL not in page and "</script><script>" not in page
    assert page.count("<script") == 2 == page.count("</script")
