"""A scripted provider, and an OpenAI-compatible endpoint on this machine that answers as it is told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aaca.debugset.prompts.providers.base import ConceptProvider

PARTS = ["a beak", "feathers", "wings", "a tail", "claws", "two legs", "an eye", "plumage", "a head", "a breast"]
GOOD = json.dumps({"concepts": PARTS})
KEY = "sk-this-is-a-secret-0123456789"


class Scripted(ConceptProvider):
    """Gives these answers, the last one for ever, and remembers what it was asked."""

    offline = True

    def __init__(self, *answers: str, name: str = "scripted-1") -> None:
        self.answers, self.asked, self.closed, self._name = list(answers), [], 0, name

    @property
    def name(self) -> str:
        return self._name

    def ask(self, class_name: str, n: int, complaint: str) -> str:
        self.asked.append((class_name, n, complaint))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]

    def fingerprint(self) -> dict:
        return {"provider": "scripted", "name": self._name}

    def close(self) -> None:
        self.closed += 1


class Endpoint:
    """What the endpoint does: `script` holds a reply a request, the last one for ever.

    A text is the answer of the model; (status, body) is sent as it is; None says nothing until the test is over.
    """

    def __init__(self, url: str, over: threading.Event) -> None:
        self.url, self.over = url, over
        self.script: list[str | tuple[int, str] | None] = [GOOD]
        self.requests: list[dict] = []
        self.keys: list[str | None] = []

    def reply(self) -> str | tuple[int, str] | None:
        return self.script[min(len(self.requests), len(self.script)) - 1]


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[Endpoint]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.keys.append(self.headers["Authorization"])
            reply = state.reply()
            if reply is None:
                over.wait(10)
                return
            if isinstance(reply, str):
                message = {"role": "assistant", "content": reply}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                reply = 200, json.dumps({"id": "1", "object": "chat.completion", "created": 1, "choices": [choice]})
            status, body = reply
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if body.startswith("{") else "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", over)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture
def parts() -> list[str]:
    return list(PARTS)


@pytest.fixture
def key(monkeypatch) -> str:
    """A key in the environment variable that is looked at first."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return KEY
