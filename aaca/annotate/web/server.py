"""The annotation page on the loopback: no path parameters, a random token, its own origin only."""

import json
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from aaca.annotate.book import AnswerBook
from aaca.annotate.pack import Pack
from aaca.annotate.task import Answer, from_entry, to_line
from aaca.annotate.web.page import render, task_entry
from aaca.runtime.errors import AacaError, DataError

HOST = "127.0.0.1"
LARGEST = 64 * 1024  # bytes of a request
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Gate:
    """Who may ask: whoever has the token, at this host, and, where a browser says one, from this origin."""

    def __init__(self, port: int, token: str) -> None:
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self.token = token

    def refusal(self, request: Request, given: str) -> Response | None:
        """The answer to whoever may not; None for others."""
        origin = request.headers.get("origin")
        if request.headers.get("host", "") not in self.hosts:
            reason = "not this host"
        elif origin is not None and origin not in {f"http://{host}" for host in self.hosts}:
            reason = "not this origin"
        elif not secrets.compare_digest(given.encode(), self.token.encode()):
            reason = "wrong token: open the address that `aaca annotate` printed"
        else:
            return None
        return JSONResponse({"error": reason}, 403, PRIVATE)


class Desk:
    """What the page asks for and brings: each method takes a parsed request and gives JSON."""

    def __init__(self, pack: Pack, book: AnswerBook) -> None:
        self.pack, self.book = pack, book
        self.places = {task.task_id: task for task in pack.tasks}

    def tasks(self, entry: dict[str, Any]) -> dict[str, Any]:
        """All tasks, and what this person has said so far."""
        said = {task: json.loads(to_line(answer)) for task, answer in self.book.of(_annotator(entry)).items()}
        return {"tasks": [task_entry(task) for task in self.pack.tasks], "answers": said}

    def picture(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The pictures of one task, by its position."""
        index = entry.get("index")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(self.pack.tasks):
            raise DataError(f"index: {index!r}; expected 0…{len(self.pack.tasks) - 1}")
        return self.pack.pictures[index]

    def answer(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Keep an answer; image, class and time are ours to say."""
        task = self.places.get(str(entry.get("task_id")))
        if task is None:
            raise DataError("task_id: no such task")
        rival = "" if task.predicted == task.class_ else task.predicted
        known = {"image_id": task.image_id, "class": task.class_, "rival": rival, "ts": _now()}
        self.book.add(from_entry(Answer, {**entry, **known, "annotator": _annotator(entry)}, "answer"))
        return {"saved": len(self.book)}


def make_app(pack: Pack, book: AnswerBook, port: int, token: str) -> Starlette:
    """The application: a page and three posts, all behind the gate."""
    gate, desk, which = Gate(port, token), Desk(pack, book), pack.fingerprint()

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        refused = gate.refusal(request, request.query_params.get("token", ""))
        headers = {**PRIVATE, "Content-Security-Policy": policy}
        return refused or HTMLResponse(render(nonce=nonce, token=token, pack=which), headers=headers)

    def guarded(work: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            refused = gate.refusal(request, request.headers.get("x-aaca-token", ""))
            if refused is not None:
                return refused
            try:
                return JSONResponse(work(await _entry_of(request)), headers=PRIVATE)
            except AacaError as error:
                return JSONResponse({"error": str(error)}, 400, PRIVATE)

        return handle

    posts = {"/tasks": desk.tasks, "/picture": desk.picture, "/answer": desk.answer}
    routes = [Route("/", page), *(Route(path, guarded(work), methods=["POST"]) for path, work in posts.items())]
    return Starlette(routes=routes)


async def _entry_of(request: Request) -> dict[str, Any]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise DataError("the request is too large")
    try:
        found = json.loads(body or b"{}")
    except ValueError as error:
        raise DataError("not JSON") from error
    if not isinstance(found, dict):
        raise DataError("expected an object")
    return found


def _annotator(entry: dict[str, Any]) -> str:
    name = " ".join(str(entry.get("annotator", "")).split())
    if not 0 < len(name) <= 60 or not name.isprintable():
        raise DataError("annotator: expected a name of 1…60 printable characters")
    return name


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def serve(pack: Pack, book: AnswerBook, port: int) -> None:
    """Serve until Ctrl-C; prints the address. Raises `AacaError` when the port is taken."""
    import uvicorn  # only where people are served

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(64)  # from here on a browser waits, should it be faster than the server
    except OSError as error:
        raise AacaError(f"port: {port} is taken ({error.strerror}); expected another port=") from error
    taken = int(listener.getsockname()[1])
    token = secrets.token_urlsafe(24)
    print(f"annotate {len(pack.tasks)} tasks at http://{HOST}:{taken}/?token={token}")
    print(f"answers go to {book.path}; Ctrl-C ends", flush=True)
    config = uvicorn.Config(make_app(pack, book, taken, token), log_level="warning", access_log=False, lifespan="off")
    try:
        with suppress(KeyboardInterrupt):  # the way to end it
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        book.close()
        listener.close()
