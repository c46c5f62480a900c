"""The page itself: one template for the served page and for the static file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aaca.annotate.pack import Pack
from aaca.annotate.task import Task, to_line


def task_entry(task: Task) -> dict[str, Any]:
    """A task as the page reads it (shares are not told: people shall look, not read numbers)."""
    entry: dict[str, Any] = json.loads(to_line(task))
    entry["candidates"] = [{"name": c["name"], "kind": c["kind"]} for c in entry["candidates"]]
    return entry


def render(
    nonce: str,
    token: str,
    pack: str,
    tasks: Sequence[Mapping[str, Any]] | None = None,
    pictures: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The page for the pack of that fingerprint.

    With tasks and pictures it needs no server, and keeps answers in the browser until they are saved.
    """
    environment = Environment(
        loader=PackageLoader("aaca.annotate.web", "."), autoescape=True, undefined=StrictUndefined
    )
    data = {"token": token, "pack": pack, "tasks": tasks, "pictures": pictures}
    return environment.get_template("page.html.j2").render(nonce=nonce, data=_inside_script(data))


def _inside_script(value: Any) -> str:
    # JSON that cannot end the script element it stands in
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def static_page(pack: Pack) -> str:
    """All tasks in one HTML file that opens from disk."""
    tasks = [task_entry(task) for task in pack.tasks]
    return render(nonce="static", token="", pack=pack.fingerprint(), tasks=tasks, pictures=pack.pictures)
