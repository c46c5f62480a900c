"""Vocabularies: words stay verbatim and in step with their vectors, or it is an error of one line."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from aaca.concepts.vocab_store import MANIFEST, VECTORS, WORDS, VocabStore, read_words
from aaca.runtime.errors import DataError

ODD = [
    "#hashtag",
    "golden retriever",
    'a "quoted" word',
    "salt, pepper",
    " fp ",
    "naïve",
    "a\u2028b",
    "a\rb",
    "{}",
    "1",
]
ABOUT = {"templates": ["{}"], "encoder": "abc"}


def unit(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def store(words=ODD) -> VocabStore:
    return VocabStore(list(words), unit(len(words)), ABOUT)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_words_are_read_verbatim(tmp_path, newline, last):
    file = tmp_path / "words.txt"
    file.write_bytes((newline.join(ODD) + newline * last).encode())
    assert read_words(file) == ODD


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    (tmp_path / "words.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
    assert read_words(tmp_path / "words.txt") == ["cat", "dog"]


def test_a_list_of_20000_words_keeps_its_rows(tmp_path):
    words = [f"{'#' * (row % 7 == 0)}w{row}" for row in range(20_000)]
    (tmp_path / "20k.txt").write_text("\n".join(words))
    assert read_words(tmp_path / "20k.txt") == words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "line 2 is blank"),
        (b"a\n \nb\n", "line 2 is blank"),
        (b"a\nb\n\n", "line 3 is blank"),
        (b"cat\ndog\ncat\n", "'cat' stands on lines 1 and 3"),
        (b"", "no words"),
        (b"\xff\xfe", "no word list in UTF-8"),
    ],
)
def test_lines_that_would_shift_rows_are_one_line(tmp_path, content, message):
    file = tmp_path / "words.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_words(file)
    with pytest.raises(DataError, match="no word list"):
        read_words(tmp_path / "none.txt")


def test_save_and_load(tmp_path):
    saved = store()
    saved.save(tmp_path / "vocab")
    again = VocabStore.load(tmp_path / "vocab")
    assert again.words == ODD and again.about == ABOUT and len(again) == len(ODD)
    np.testing.assert_array_equal(again.vectors, saved.vectors)
    manifest = json.loads((tmp_path / "vocab" / MANIFEST).read_text())
    assert (manifest["rows"], manifest["dim"], manifest["about"]) == (len(ODD), 6, ABOUT)
    assert set(manifest["sha256"]) == {WORDS, VECTORS}


def test_a_word_that_is_also_a_secret_is_saved_verbatim(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_PASSWORD", "strawberry")
    store(["strawberry", "plum"]).save(tmp_path)
    assert VocabStore.load(tmp_path).words == ["strawberry", "plum"]


def drop_a_word(folder):
    (folder / WORDS).write_text("\n".join(["one", "two"]))


def drop_a_vector(folder):
    save_file({"vectors": load_file(folder / VECTORS)["vectors"][:-1].copy()}, folder / VECTORS)


def swap_words(folder):
    (folder / WORDS).write_text("".join(f"{word}\n" for word in ("two", "one", "three")))


def swap_vectors(folder):
    save_file({"vectors": load_file(folder / VECTORS)["vectors"][::-1].copy()}, folder / VECTORS)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (drop_a_word, r"row counts differ \(manifest.json 3, words.txt 2, vectors.safetensors 3\)"),
        (drop_a_vector, "row counts differ"),
        (swap_words, "words.txt: changed since"),
        (swap_vectors, "vectors.safetensors: changed since"),
        (lambda folder: (folder / MANIFEST).unlink(), "no vocabulary"),
        (lambda folder: (folder / VECTORS).write_bytes(b"x"), "no vocabulary"),
        (lambda folder: (folder / MANIFEST).write_text('{"rows": 3}'), "no vocabulary"),
    ],
)
def test_a_store_whose_parts_do_not_fit_is_refused(tmp_path, harm, message):
    store(["one", "two", "three"]).save(tmp_path)
    harm(tmp_path)
    with pytest.raises(DataError, match=message):
        VocabStore.load(tmp_path)


def test_an_interrupted_second_save_does_not_load(tmp_path, monkeypatch):
    store(["one", "two", "three"]).save(tmp_path)
    monkeypatch.setattr("aaca.concepts.vocab_store.save_file", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        store(["two", "one", "three"]).save(tmp_path)
    with pytest.raises(DataError, match="no vocabulary"):
        VocabStore.load(tmp_path)


def test_what_a_store_is_of_has_to_be_said_before_it_is_saved(tmp_path):
    with pytest.raises(DataError, match="about lacks 'encoder'"):
        VocabStore(["a"], unit(1), {"templates": ["{}"]}).save(tmp_path)


@pytest.mark.parametrize(
    ("words", "vectors", "message"),
    [
        (["a", "b"], unit(3), "2 words and 3 vectors"),
        (["a", "b"], 2 * unit(2), r"'a' \(row 0\) does not have length 1"),
        (["a", "b"], np.full((2, 6), np.nan, dtype=np.float32), "does not have length 1"),
        (["a", "b"], unit(2).astype(np.float16), "expected float32"),
        (["a", "a"], unit(2), "stands on lines 1 and 2"),
        (["a\nb", "c"], unit(2), "holds a line break"),
        (["a\r", "c"], unit(2), "holds a line break"),
    ],
)
def test_words_and_vectors_that_do_not_fit_are_one_line(words, vectors, message):
    with pytest.raises(DataError, match=message):
        VocabStore(words, vectors, ABOUT)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_embedding_goes_in_batches_and_gives_unit_rows_in_order(batch):
    seen = []

    def text_vectors(words):
        seen.append(len(words))
        return np.array([[len(word), ODD.index(word), 1.0] for word in words], dtype=np.float16)

    made = VocabStore.embed(ODD, text_vectors, ABOUT, batch=batch)
    assert max(seen) == min(batch, len(ODD)) and sum(seen) == len(ODD)
    rows = np.array([[len(word), row, 1.0] for row, word in enumerate(ODD)])
    np.testing.assert_allclose(made.vectors, rows / np.sqrt((rows**2).sum(1, keepdims=True)), atol=1e-7)
    assert made.vectors.dtype == np.float32 and made.about == ABOUT


def test_a_zero_vector_names_its_word():
    with pytest.raises(DataError, match=r"'dog' \(row 1\) is zero"):
        VocabStore.embed(["cat", "dog"], lambda words: np.array([[word == "cat", 0.0] for word in words]), ABOUT)
    with pytest.raises(DataError, match="no words to embed"):
        VocabStore.embed([], lambda words: np.empty((0, 2)), ABOUT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_torch_file_comes_in_with_its_words(tmp_path, dtype):
    (tmp_path / "words.txt").write_text("\n".join(["#a", "b c", "d"]))
    values = torch.from_numpy(unit(3)) * 300  # squares overflow float16
    torch.save(values.to(dtype), tmp_path / "e.pth")
    made = VocabStore.import_torch(tmp_path / "words.txt", tmp_path / "e.pth", ABOUT)
    assert made.words == ["#a", "b c", "d"] and made.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(made.vectors, unit(3), atol=1e-2 if dtype == torch.bfloat16 else 1e-3)


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, 4), "2 rows; .* has 3 words"),
        (torch.ones(3), "expected one tensor of floats"),
        (torch.ones(3, 4, dtype=torch.long), "expected one tensor of floats"),
        ({"a": torch.ones(3, 4)}, "expected one tensor of floats"),
        (Trap(), "no tensor of plain numbers"),
    ],
)
def test_other_torch_files_are_refused(tmp_path, capsys, value, message):
    (tmp_path / "words.txt").write_text("a\nb\nc\n")
    torch.save(value, tmp_path / "e.pth")
    with pytest.raises(DataError, match=message):
        VocabStore.import_torch(tmp_path / "words.txt", tmp_path / "e.pth", ABOUT)
    assert "executed" not in capsys.readouterr().out


def test_filters_keep_words_and_vectors_in_step_and_are_noted():
    made = store(["a", "cat", "of", "dog", "house"])
    kept = made.filtered(min_length=3).filtered(drop={"dog", "zebra"})
    assert kept.words == ["cat", "house"]
    np.testing.assert_array_equal(kept.vectors, made.vectors[[1, 4]])
    notes = kept.about["filters"]
    assert [note["rows_before"] for note in notes] == [5, 3] and notes[1]["drop"] == ["dog", "zebra"]
    assert "filters" not in made.about
    with pytest.raises(DataError, match="no word is left of 5"):
        made.filtered(min_length=9)
