"""The annotation page on the loopback: no path parameters, a random token, its own origin only."""

import json
import secrets
import socket
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from aaca.annotate.book import AnswerBook
from aaca.annotate.pack import Pack
from aaca.annotate.task import Answer, check_answers, from_entry, to_line
from aaca.annotate.web.page import render, task_entry
from aaca.runtime.errors import AacaError, DataError

HOST = "127.0.0.1"
LARGEST = 64 * 1024  # bytes of a request
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def make_app(pack: Pack, book: AnswerBook, port: int, token: str) -> Starlette:
    """The application. Every request needs the token, this host, and, where it says one, this origin."""
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    which = pack.fingerprint()
    places = {task.task_id: task for task in pack.tasks}

    def refusal(request: Request, given: str) -> Response | None:
        if request.headers.get("host", "") not in hosts:
            return JSONResponse({"error": "not this host"}, 403, PRIVATE)
        origin = request.headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in hosts}:
            return JSONResponse({"error": "not this origin"}, 403, PRIVATE)
        if not secrets.compare_digest(given.encode(), token.encode()):
            return JSONResponse({"error": "wrong token: open the address that `aaca annotate` printed"}, 403, PRIVATE)
        return None

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        refused = refusal(request, request.query_params.get("token", ""))
        headers = {**PRIVATE, "Content-Security-Policy": policy}
        return refused or HTMLResponse(render(nonce=nonce, token=token, pack=which), headers=headers)

    async def read(request: Request) -> Any:
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

    async def tasks(request: Request, entry: dict[str, Any]) -> Any:
        name = _annotator(entry)
        said = {task: json.loads(to_line(answer)) for task, answer in book.of(name).items()}
        return {"tasks": [task_entry(task) for task in pack.tasks], "answers": said}

    async def picture(request: Request, entry: dict[str, Any]) -> Any:
        index = entry.get("index")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(pack.tasks):
            raise DataError(f"index: {index!r}; expected 0…{len(pack.tasks) - 1}")
        return pack.pictures[index]

    async def answer(request: Request, entry: dict[str, Any]) -> Any:
        task = places.get(str(entry.get("task_id")))
        if task is None:
            raise DataError("task_id: no such task")
        rival = "" if task.predicted == task.class_ else task.predicted
        known = {"image_id": task.image_id, "class": task.class_, "rival": rival, "ts": _now()}
        given = from_entry(Answer, {**entry, **known, "annotator": _annotator(entry)}, "answer")
        check_answers([given], pack.tasks, "answer")
        book.add(given)
        return {"saved": len(book)}

    def guarded(work: Any) -> Any:
        async def handle(request: Request) -> Response:
            refused = refusal(request, request.headers.get("x-aaca-token", ""))
            if refused is not None:
                return refused
            try:
                return JSONResponse(await work(request, await read(request)), headers=PRIVATE)
            except AacaError as error:
                return JSONResponse({"error": str(error)}, 400, PRIVATE)

        return handle

    posts = {"/tasks": tasks, "/picture": picture, "/answer": answer}
    routes = [Route("/", page), *(Route(path, guarded(work), methods=["POST"]) for path, work in posts.items())]
    return Starlette(routes=routes)


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
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        book.close()
        listener.close()
