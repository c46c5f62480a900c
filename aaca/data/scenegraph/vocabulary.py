"""The words of captions and their ids: word2int.json and int2word.npy, as ASG2Caption writes them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from aaca.data.scenegraph.arrays import json_object, text_array
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import atomic_path

BOS, EOS, UNK = 0, 1, 2
SPECIAL = ("<BOS>", "<EOS>", "<UNK>")
"""Words 0, 1 and 2: begin of a caption, its end, and every word that is not known."""
WORD2INT, INT2WORD = "word2int.json", "int2word.npy"


class Words:
    """A vocabulary: the word of each id, and the other way round. Captions are lower-case words between spaces.

    Args:
        words: all words, in the order of their ids; the first three are `SPECIAL`.

    Raises `DataError` where they are not, or where a word comes twice, is empty or holds white space.

    """

    def __init__(self, words: Sequence[str]) -> None:
        if tuple(words[:3]) != SPECIAL:
            raise DataError(f"vocabulary: begins with {list(words[:3])}; expected {list(SPECIAL)}")
        self.words = tuple(words)
        self.ids = {word: number for number, word in enumerate(self.words)}
        if len(self.ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise DataError(f"vocabulary: {twice!r} comes twice")
        for word in self.words:
            if word.split() != [word]:
                raise DataError(f"vocabulary: {word!r}; expected words without white space")

    @classmethod
    def from_counts(cls, captions: Iterable[str], least: int) -> "Words":
        """The words that `captions` hold at least `least` times, the commonest first (equally common: by alphabet).

        Raises `ConfigError` for a `least` below 1.
        """
        if least < 1:
            raise ConfigError(f"least: {least}; expected 1 or more")
        counts = Counter(word for caption in captions for word in caption.split() if word not in SPECIAL)
        kept = [word for word, count in counts.items() if count >= least]
        return cls([*SPECIAL, *sorted(kept, key=lambda word: (-counts[word], word))])

    @classmethod
    def load(cls, folder: Path) -> "Words":
        """The vocabulary of a folder. Raises `DataError` where one of its files is missing, or they disagree."""
        listed = text_array(folder / INT2WORD).tolist()
        mapped = json_object(folder / WORD2INT)
        if mapped != {word: number for number, word in enumerate(listed)}:
            raise DataError(
                f"{folder / WORD2INT}: {len(mapped)} words that do not match the {len(listed)} of {INT2WORD}; "
                "expected each word's position there"
            )
        try:
            return cls(listed)
        except DataError as error:
            raise DataError(f"{folder / INT2WORD}: {error}") from error

    def save(self, folder: Path) -> None:
        """Write both files into `folder`."""
        with atomic_path(folder / INT2WORD) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.array(self.words), allow_pickle=False)
        with atomic_path(folder / WORD2INT) as temporary:
            temporary.write_text(json.dumps(self.ids, ensure_ascii=False), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def encode(self, text: str, length: int) -> np.ndarray:
        """Ids int64 of BOS, the words, EOS: `length` at most. A longer caption loses its last words, never its EOS.

        Raises `ConfigError` for a length below 2.
        """
        if length < 2:
            raise ConfigError(f"length: {length}; expected 2 or more (the begin and the end of a caption)")
        ids = [self._id(word) for word in text.split()[: length - 2]]
        return np.array([BOS, *ids, EOS], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The caption up to its first EOS, without BOS. Raises `DataError` for an id that no word has."""
        words: list[str] = []
        for number in map(int, ids):
            if not 0 <= number < len(self.words):
                raise DataError(f"vocabulary: no word {number}; expected 0 to {len(self.words) - 1}")
            if number == EOS:
                break
            if number != BOS:
                words.append(self.words[number])
        return " ".join(words)

    def unknown(self, text: str) -> int:
        """How many words of `text` the vocabulary lacks."""
        return sum(self._id(word) == UNK for word in text.split())

    def _id(self, word: str) -> int:
        # a caption cannot end or begin itself by the names of special words
        number = self.ids.get(word, UNK)
        return number if number > UNK else UNK
