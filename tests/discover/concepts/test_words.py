"""Concepts from captions and from people's lists."""

import numpy as np
import pandas as pd
import pytest

from aaca.data.table import ImageTable
from aaca.discover.concepts.base import View
from aaca.discover.concepts.human import Human
from aaca.discover.concepts.keywords import CaptionKeywords, keywords
from aaca.runtime.errors import ConfigError, DataError

CAPTIONS = [
    "a photo of a bird on sand",
    "a photo of a bird on grass",
    "a photo of sand",
    "a photo of a red ball on sand",
]
VIEW = View(16, (2, 2))


def table(captions=CAPTIONS, split="audit"):
    frame = pd.DataFrame(
        {
            "id": [f"i{row}" for row in range(len(captions))],
            "label": 0,
            "path": "none.npy",
            "row": range(len(captions)),
            "caption": captions,
            "split": split,
        }
    )
    return ImageTable.build(frame, ["bird"])


def test_keywords_are_counted_by_captions():
    words, present = keywords(CAPTIONS, least=2)
    assert words == ["bird", "sand"]  # "photo" is in all of them, "of", "a", "on" are stop words, the rest is rare
    np.testing.assert_array_equal(present, [[True, True], [True, False], [False, True], [False, True]])
    assert "red ball" in keywords(CAPTIONS, least=1, words=2)[0]
    assert keywords(["the of", "of"], least=1)[0] == []


def test_keywords_are_concepts_of_the_vocabulary_s_kinds():
    found = CaptionKeywords(least=1).find(table(), VIEW, None, places=True)
    assert found.kinds() == {
        "bird": "object",
        "sand": "background",
        "grass": "background",
        "ball": "object",
        "red": "object",
    }
    np.testing.assert_array_equal(found.present(["sand"])[:, 0], [True, False, True, True])
    assert np.isnan(found.amounts(["sand"])[0, 0])


def test_people_s_lists(tmp_path):
    file = tmp_path / "c.csv"
    file.write_text(
        "id,concept,kind\ni0,The  Sand,background\ni0,sand,background\ni2,a ball,object\nelsewhere,sea,background\n"
    )
    found = Human(str(file)).find(table(), VIEW, None, places=True)
    assert found.frame[["row", "concept", "kind"]].values.tolist() == [[0, "sand", "background"], [2, "ball", "object"]]
    with pytest.raises(DataError, match="no line is about an image of split train"):
        Human(str(file)).find(table(split="train").take(np.array([1])), VIEW, None, places=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,concpt\ni0,sand\n", "column 'concpt'; nearest valid: concept"),
        ("id,kind\ni0,object\n", "no column 'concept'"),
        ("id,concept,kind\ni0,sand,backgrund\n", "line 2: kind 'backgrund'; nearest valid: background"),
        ("id,concept\ni0,\n", "line 2: concept ''"),
        (f"id,concept\ni0,{'x' * 61}\n", "expected 1…60 characters"),
    ],
)
def test_a_list_with_a_mistake_is_one_line(tmp_path, text, message):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Human(str(tmp_path / "c.csv"))


def test_no_captions_and_no_file_are_one_line():
    with pytest.raises(DataError, match="concepts: 4 of 4 images have no caption"):
        CaptionKeywords().find(table([""] * 4), VIEW, None, places=False)
    with pytest.raises(ConfigError, match=r"concepts\.file: no file none\.csv"):
        Human("none.csv")
    with pytest.raises(ConfigError, match=r"concepts\.words: 4"):
        CaptionKeywords(words=4)
