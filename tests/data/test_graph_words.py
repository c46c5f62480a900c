import json

import numpy as np
import pytest

from aaca.data.scenegraph.vocabulary import BOS, EOS, INT2WORD, SPECIAL, UNK, WORD2INT, Words
from aaca.runtime.errors import ConfigError, DataError

CAPTIONS = ("a dog on a mat", "a dog by a cat", "the zebra")


def vocabulary() -> Words:
    return Words.from_counts(CAPTIONS, 1)


def test_words_come_by_frequency_then_by_alphabet():
    assert vocabulary().words == (*SPECIAL, "a", "dog", "by", "cat", "mat", "on", "the", "zebra")


def test_rare_words_are_left_out():
    words = Words.from_counts(CAPTIONS, 2)
    assert words.words == (*SPECIAL, "a", "dog")
    assert words.encode("a cat", 9).tolist() == [BOS, 3, UNK, EOS]
    assert words.unknown("a zebra by a dog") == 2


def test_a_caption_comes_back():
    words = vocabulary()
    ids = words.encode("a dog on the mat", 25)
    assert ids.dtype == np.int64
    assert ids.tolist() == [BOS, *map(words.words.index, ("a", "dog", "on", "the", "mat")), EOS]
    assert words.decode(ids) == "a dog on the mat"
    assert words.decode([*ids, EOS, 3, 4]) == "a dog on the mat"


@pytest.mark.parametrize(("length", "kept"), [(2, ""), (3, "a"), (6, "a dog on the"), (7, "a dog on the mat")])
def test_a_long_caption_keeps_its_end(length, kept):
    words = vocabulary()
    ids = words.encode("a dog on the mat", length)
    assert len(ids) <= length
    assert ids[-1] == EOS
    assert words.decode(ids) == kept


def test_a_caption_cannot_end_itself():
    assert vocabulary().encode("a <EOS> <BOS> dog", 9).tolist() == [BOS, 3, UNK, UNK, 4, EOS]


def test_files_come_back_and_are_upstreams(tmp_path):
    words = vocabulary()
    words.save(tmp_path)
    assert Words.load(tmp_path) == words
    assert json.loads((tmp_path / WORD2INT).read_text())["dog"] == 4
    assert np.load(tmp_path / INT2WORD, allow_pickle=False)[4] == "dog"
    assert len(words) == 11


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="length: 1; expected 2 or more"):
        vocabulary().encode("a", 1)
    with pytest.raises(ConfigError, match="least: 0; expected 1 or more"):
        Words.from_counts(CAPTIONS, 0)
    with pytest.raises(DataError, match="no word 11; expected 0 to 10"):
        vocabulary().decode([3, 11])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "c"], "begins with"),
        ([*SPECIAL, "a", "a"], "'a' comes twice"),
        ([*SPECIAL, "a b"], "without white space"),
        ([*SPECIAL, ""], "without white space"),
    ],
)
def test_a_broken_vocabulary_is_refused(words, message):
    with pytest.raises(DataError, match=message):
        Words(words)


def test_files_that_disagree_are_refused(tmp_path):
    vocabulary().save(tmp_path)
    mapped = json.loads((tmp_path / WORD2INT).read_text())
    mapped["dog"], mapped["a"] = mapped["a"], mapped["dog"]
    (tmp_path / WORD2INT).write_text(json.dumps(mapped))
    with pytest.raises(DataError, match=r"do not match the 11 of int2word\.npy"):
        Words.load(tmp_path)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    vocabulary().save(tmp_path)
    np.save(tmp_path / INT2WORD, np.array(vocabulary().words, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"int2word.npy: holds pickled Python objects.*expected an array of text"):
        Words.load(tmp_path)


@pytest.mark.parametrize("values", [np.arange(5), np.array([["a", "b"]])])
def test_an_array_of_something_else_is_refused(tmp_path, values):
    vocabulary().save(tmp_path)
    np.save(tmp_path / INT2WORD, values)
    with pytest.raises(DataError, match=r"expected an array of text \[n\]"):
        Words.load(tmp_path)


def test_broken_files_are_named(tmp_path):
    vocabulary().save(tmp_path)
    (tmp_path / INT2WORD).write_bytes(b"\x93NUMPY\x01\x00garbage")
    with pytest.raises(DataError, match=r"int2word.npy: not a readable .npy file"):
        Words.load(tmp_path)
    vocabulary().save(tmp_path)
    (tmp_path / WORD2INT).write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"word2int.json: not a readable JSON file"):
        Words.load(tmp_path)
    (tmp_path / WORD2INT).unlink()
    with pytest.raises(DataError, match=r"word2int.json: no such file"):
        Words.load(tmp_path)


def test_a_header_that_lies_takes_no_memory(tmp_path):
    vocabulary().save(tmp_path)
    with (tmp_path / INT2WORD).open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<U1000", "fortran_order": False, "shape": (2**40,)})
    with pytest.raises(DataError, match=r"int2word.npy: not a readable .npy file"):
        Words.load(tmp_path)
