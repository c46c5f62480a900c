"""Embedding stores from, and as, one file of one (N, d) tensor: `.npy` or torch."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from aaca.data.embedding_shards import chunks_of
from aaca.data.embedding_writer import store_of_array
from aaca.data.embeddings import EmbeddingStore
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path, file_sha256


def import_tensor(
    file: Path, folder: Path, labels: np.ndarray | None = None, about: dict[str, Any] | None = None
) -> EmbeddingStore:
    """A store of the (N, d) tensor in a `.npy` or a torch file (any other suffix, or none, as DN-CBM's are).

    Never unpickles objects. Raises `DataError` where the file holds anything but one matrix of floats.
    """
    load: Callable[[Path], Any] = _load_npy if file.suffix == ".npy" else _load_torch
    try:
        array = load(file)
    except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        first = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: not a file of one tensor ({first})") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        shape = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"{file}: {shape}; expected one tensor of floats [N, d]")
    return store_of_array(folder, array, labels=labels, about={"imported": file_sha256(file), **(about or {})})


def _load_npy(file: Path) -> np.ndarray:
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _load_torch(file: Path) -> Any:
    loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if not isinstance(loaded, torch.Tensor):
        return loaded
    plain = loaded.detach()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()  # numpy has no bfloat16


def export_tensor(store: EmbeddingStore, file: Path) -> None:
    """Write all rows, in the stored type, as one `.npy`, or else as torch file of one (N, d) tensor.

    The torch file is put together in memory (the whole tensor); the `.npy` is streamed.
    """
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        if file.suffix == ".npy":
            _stream_npy(store, stream)
        else:
            torch.save(torch.from_numpy(np.array(store.block(0, store.n))), stream)


def _stream_npy(store: EmbeddingStore, stream: BinaryIO) -> None:
    head = {"descr": np.dtype(store.dtype).str, "fortran_order": False, "shape": (store.n, store.dim)}
    np.lib.format.write_array_header_1_0(stream, head)
    for chunk in chunks_of(store.shards, store.dim, store.dtype):
        stream.write(chunk.tobytes())
