"""The story page: what is said and shown; names from data are text; pictures are what they should be."""

import re

import numpy as np
import pytest

from aaca.evaluate.story import DARKEST, Drawn, Sight, Story, spotlight, write_story

EVIL = "<script>document.title='owned'</script>"


def story(**changes):
    image = np.full((16, 16, 3), 200, dtype=np.uint8)
    fields = {
        "method": "aaca",
        "name": "bird",
        "rival": "mammal",
        "annotator": "simulated: oracle",
        "images": 200,
        "wrong_before": 31,
        "wrong_after": 29,
        "repaired": 15,
        "broken": 13,
        "sights": [Sight(image, "mammal", "bird", np.eye(4), np.ones((4, 4)))],
        "evidence": [{"rival": "mammal", "concept": EVIL, "S_conf": "0.4"}],
        "meanings": {"S_conf": "confounded score"},
        "confounded": ["grass (says mammal)"],
        "valid": ["beak"],
        "drawn": [Drawn("a photo of a bird on grass", "decorrelate", 16, [image, image])],
        "again": [{"concept": "grass", "images": "4"}],
        "again_meanings": {"concept": "what is in them"},
        "tests": [{"slice": "test/balanced", "before": 0.35, "after": 0.29}],
    }
    return Story(**{**fields, **changes})


def test_the_page_tells_all_five_parts_and_runs_nothing(tmp_path):
    text = write_story(tmp_path, story()).read_text()
    for said in (
        "31 of 200",
        "15 that were wrong are right now",
        "13 that were right are wrong now",
        "35.0 %",
        "29.0 %",
    ):
        assert said in text
    assert (
        "no person has looked at these images" in text and "grass (says mammal)" in text and "16 images taken" in text
    )
    assert "<script" not in text and "&lt;script&gt;" in text
    assert len(re.findall(r"<img src=\"data:image/png;base64,", text)) == 3 + 2
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)


def test_people_are_people_and_nothing_is_said_to_be_nothing(tmp_path):
    text = write_story(tmp_path, story(annotator="ann", confounded=[], drawn=[], evidence=[], again=[])).read_text()
    assert "no person has looked" not in text and "Decided by <b>ann</b>" in text
    for said in ("too few failures for statistics", "Nothing was drawn", "Confounds the model: <b>nothing</b>"):
        assert said in text


@pytest.mark.parametrize("size", [(8, 8), (10, 6)])
def test_a_spotlight_is_bright_where_the_map_is_high(size):
    image = np.full((*size, 3), 100, dtype=np.uint8)
    relevance = np.zeros((2, 2))
    relevance[0, 0] = 3.0
    seen = spotlight(image, relevance)
    assert seen[0, 0, 0] == 100 and seen[-1, -1, 0] == round(100 * DARKEST)
    np.testing.assert_array_equal(spotlight(image, np.zeros((2, 2))), np.full_like(image, round(100 * DARKEST)))
