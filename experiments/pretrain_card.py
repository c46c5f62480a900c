"""From finished stages to the files that ship: half precision, a card beside each model."""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from aaca import __version__
from aaca.runtime.files import file_sha256, read_json, write_json, write_text
from aaca.runtime.stages import MANIFEST, Stage


def half(source: Path, target: Path) -> None:
    """Copy weights in half precision; integers stay."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in load_file(source).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, target, metadata={"format": "pt"})


def fresh(folder: Path) -> Path:
    """An empty folder in the place of whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_card(folder: Path, title: str, text: str, stages: list[Stage], command: str, metrics: dict[str, Any]) -> None:
    """`README.md` for people and `card.json` for programs: data, command, seed, seconds, hashes, metrics."""
    manifests = {stage.name: read_json(stage.folder / MANIFEST) for stage in stages}
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ("README.md", "card.json")
    }
    card = {
        "model": title,
        "command": command,
        "seconds": {name: manifest["seconds"] for name, manifest in manifests.items()},
        "settings": {name: manifest["inputs"] for name, manifest in manifests.items()},
        "versions": {
            "aaca": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "open_clip_torch", "transformers", "timm")},
        },
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "metrics": metrics,
        "files": files,
    }
    write_json(folder / "card.json", card)
    lines = [f"# {title}", "", text, "", f"Made by `{command}`", f"with aaca {__version__}.", "", "| stage | seconds |"]
    lines += ["|---|---|", *(f"| {name} | {seconds:.0f} |" for name, seconds in card["seconds"].items()), ""]
    lines += ["| file | bytes | SHA-256 |", "|---|---|---|"]
    lines += [f"| {name} | {about['bytes']} | `{about['sha256']}` |" for name, about in files.items()]
    lines += ["", "## Metrics", "", "```json", json.dumps(metrics, indent=1, ensure_ascii=False), "```", ""]
    write_text(folder / "README.md", "\n".join(lines))
