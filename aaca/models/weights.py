"""Which weights a model name stands for: a hash of the files of a folder, an id and revision of a hub."""

from pathlib import Path
from typing import Any

from aaca.runtime.errors import AacaError
from aaca.runtime.explain import summary
from aaca.runtime.files import digest, file_sha256

OFFLINE_HINT = "give a local folder instead, or check the network (HF_HUB_OFFLINE, proxies)"


def fingerprint_of(model: str, revision: str | None = None) -> dict[str, Any]:
    """The content of a folder or file; of a hub's model its id and revision."""
    path = Path(model)
    if path.is_file():
        return {"sha256": file_sha256(path)}
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.is_file() and file.suffix in (".json", ".safetensors", ".txt")
        )
        return {"sha256": digest([[str(file.relative_to(path)), file_sha256(file)] for file in files])}
    return {"id": model, "revision": revision}


def load_problem(key: str, model: str, error: Exception) -> AacaError:
    """One line for what a library said when it could not load `model`."""
    name = type(error).__name__
    text = summary(error)
    if Path(model).exists():
        return AacaError(
            f"{key}: {model} could not be loaded ({text}); expected a complete folder of its model's files"
        )
    if name in ("RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError"):
        return AacaError(f"{key}: the hub has no {model!r}, or it is not public ({name}); check id and revision")
    return AacaError(f"{key}: {model!r} is no folder here and could not be fetched ({text}); {OFFLINE_HINT}")
