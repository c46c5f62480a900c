"""`VocabStore`: the words that concepts may be named by, verbatim, with their unit text vectors."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path, file_sha256, read_json, write_json

WORDS, VECTORS, MANIFEST = "words.txt", "vectors.safetensors", "manifest.json"
SCHEMA = 1
REQUIRED = ("templates", "encoder")
"""What `about` has to say before a store is saved: the text templates, and the fingerprint of the text encoder."""


def read_words(file: Path) -> list[str]:
    """Words of a UTF-8 file, one a line, verbatim: '#', spaces and quotes are part of a word, only the newline is not.

    The layout of CLIP-Dissect's word lists (Oikarinen & Weng 2023). Raises `DataError` for a file that cannot be read,
    a blank line, or a word that stands twice: each would shift the words against the rows of a tensor.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: no word list in UTF-8 ({error})") from error
    return _parse(text, str(file))


def _parse(text: str, where: str) -> list[str]:
    # `splitlines` would also split at separators that a word may hold, such as U+2028
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        lines.pop()
    words, seen = [line.removesuffix("\r") for line in lines], dict[str, int]()
    for number, word in enumerate(words, start=1):
        if not word.strip():
            raise DataError(f"{where}: line {number} is blank; expected a word on every line")
        if word in seen:
            raise DataError(f"{where}: {word!r} stands on lines {seen[word]} and {number}; expected every word once")
        seen[word] = number
    if not words:
        raise DataError(f"{where}: no words; expected at least one line")
    return words


@dataclass(frozen=True)
class VocabStore:
    """Distinct words and their unit text vectors `[V, D]` float32, in the same order.

    `about`: what the vectors are of (`templates`, `encoder`, …), plain values. Raises `DataError` for words that a file
    of lines cannot hold and for vectors that are not V finite unit rows.
    """

    words: list[str]
    vectors: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if _parse(_lines(self.words), "vocabulary") != list(self.words):
            raise DataError("vocabulary: a word holds a line break; expected words of one line")
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise DataError(
                f"vocabulary: vectors are {self.vectors.dtype} {self.vectors.shape}; expected float32 [V, D]"
            )
        if len(self.words) != len(self.vectors):
            raise DataError(f"vocabulary: {len(self.words)} words and {len(self.vectors)} vectors; expected as many")
        off = np.abs(np.linalg.norm(self.vectors, axis=1) - 1)
        if not (off < 1e-3).all():
            row = int(np.flatnonzero(~(off < 1e-3))[0])
            raise DataError(f"vocabulary: the vector of {self.words[row]!r} (row {row}) does not have length 1")

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def embed(
        cls,
        words: Sequence[str],
        text_vectors: Callable[[Sequence[str]], np.ndarray],
        about: Mapping[str, Any],
        batch: int = 256,
    ) -> "VocabStore":
        """Embed words, `batch` at a time, and scale the vectors to length 1.

        `text_vectors`: words in, `[B, D]` out; it applies its templates itself, and `about` says which they are.
        """
        parts = [np.asarray(text_vectors(words[start : start + batch])) for start in range(0, len(words), batch)]
        if not parts:
            raise DataError("vocabulary: no words to embed; expected at least one")
        return cls(list(words), _unit(np.concatenate(parts), words), dict(about))

    @classmethod
    def import_torch(cls, words_file: Path, tensor_file: Path, about: Mapping[str, Any]) -> "VocabStore":
        """A word list and a tensor `[V, D]` of any float type that `torch.save` wrote, as of Discover-then-Name.

        Nothing in the file is executed. Raises `DataError` for what is no such tensor, or of another number of rows.
        """
        import torch  # seconds: only where it is used

        words = read_words(words_file)
        try:
            tensor = torch.load(tensor_file, "cpu", weights_only=True)
        except Exception as error:  # broken bytes make the safe unpickler fail in any way it likes
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{tensor_file}: no tensor of plain numbers ({reason})") from error
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2 or not tensor.is_floating_point():
            found = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor)
            raise DataError(f"{tensor_file}: holds {found}; expected one tensor of floats [V, D]")
        if len(tensor) != len(words):
            raise DataError(f"{tensor_file}: {len(tensor)} rows; {words_file} has {len(words)} words")
        return cls(words, _unit(tensor.detach().float().numpy(), words), dict(about))

    def filtered(self, min_length: int = 1, drop: Collection[str] = frozenset()) -> "VocabStore":
        """The words of at least `min_length` characters that are not in `drop`; `about["filters"]` notes it.

        Raises `DataError` where no word is left.
        """
        unwanted = set(drop)
        kept = [row for row, word in enumerate(self.words) if len(word) >= min_length and word not in unwanted]
        if not kept:
            raise DataError(
                f"vocabulary: no word is left of {len(self)} (min_length {min_length}, {len(unwanted)} drop)"
            )
        note = {"min_length": min_length, "drop": sorted(unwanted), "rows_before": len(self)}
        about = {**self.about, "filters": [*self.about.get("filters", []), note]}
        return VocabStore([self.words[row] for row in kept], self.vectors[kept], about)

    def save(self, folder: Path) -> None:
        """Write `words.txt`, `vectors.safetensors` and, last, `manifest.json`.

        Raises `DataError` where `about` lacks one of `REQUIRED`.
        """
        for name in REQUIRED:
            if name not in self.about:
                raise DataError(f"vocabulary: about lacks {name!r}; expected {', '.join(REQUIRED)}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)  # an interrupted second save must not pass for the first
        with atomic_path(folder / WORDS) as temporary:
            temporary.write_bytes(_lines(self.words).encode("utf-8"))  # verbatim: no masking, no newline translation
        with atomic_path(folder / VECTORS) as temporary:
            save_file({"vectors": np.ascontiguousarray(self.vectors)}, temporary)
        manifest = {
            "schema": SCHEMA,
            "rows": len(self),
            "dim": self.vectors.shape[1],
            "sha256": {name: file_sha256(folder / name) for name in (WORDS, VECTORS)},
            "about": self.about,
        }
        write_json(folder / MANIFEST, manifest)

    @classmethod
    def load(cls, folder: Path) -> "VocabStore":
        """Read what `save` wrote. Raises `DataError` where a file is missing or changed, or the row counts differ."""
        try:
            manifest = read_json(folder / MANIFEST)
            words, vectors = read_words(folder / WORDS), load_file(folder / VECTORS)["vectors"]
            rows = {MANIFEST: manifest["rows"], WORDS: len(words), VECTORS: len(vectors)}
            about, sums, schema = manifest["about"], manifest["sha256"], manifest["schema"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(f"{folder}: no vocabulary ({error!r})") from error
        if schema != SCHEMA:
            raise DataError(f"{folder}: a vocabulary of schema {schema}; expected {SCHEMA}")
        if len(set(rows.values())) != 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise DataError(f"{folder}: row counts differ ({counts})")
        for name in (WORDS, VECTORS):
            if file_sha256(folder / name) != sums.get(name):
                raise DataError(f"{folder / name}: changed since the vocabulary was saved (its SHA-256 differs)")
        return cls(words, vectors, about)


def _lines(words: Sequence[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def _unit(vectors: np.ndarray, words: Sequence[str]) -> np.ndarray:
    # lengths in float64: the squares of half floats overflow and vanish early
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 1e-12)))
    if len(wrong):
        raise DataError(f"vocabulary: the vector of {words[wrong[0]]!r} (row {wrong[0]}) is zero or not finite")
    return np.asarray(exact / lengths, dtype=np.float32)
