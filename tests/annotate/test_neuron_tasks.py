"""People name neurons: the pack and the page, and what answers add up to."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from aaca.annotate.aggregate import VoteRules
from aaca.annotate.annotators.base import highlighted
from aaca.annotate.exchange import from_csv, to_csv, to_label_studio
from aaca.annotate.neuron_tasks import about, names_from_answers, neuron_tasks, sets_from_answers, write_neuron_pack
from aaca.annotate.pack import Pack
from aaca.annotate.task import Answer, check_answers, load_lines, save_lines
from aaca.annotate.web.page import static_page
from aaca.runtime.errors import DataError
from tests.annotate.toys import tasks as image_tasks

CLASSES = ("bird", "mammal / pet")
BLAMED = pd.DataFrame(
    [(0, "insufficient", 7, 50.0), (0, "excessive", 3, 40.0), (1, "excessive", 7, 20.0)],
    columns=["label", "list", "neuron", "prec"],
)
LIKELY = {7: [("sand", "background"), ("beak", "attribute")]}
OTHERS = [("sand", "background"), ("grass", "background")]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def listed():
    return neuron_tasks(BLAMED, CLASSES, {"bird": CLASSES[1], CLASSES[1]: "bird"}, LIKELY, OTHERS)


def sheet(neuron, class_):
    return np.full((90, 120, 3), 10 * neuron + CLASSES.index(class_), dtype=np.uint8)


def said(task, content, relevance, person="ann", flag=""):
    return Answer(
        task.task_id, person, task.class_, task.predicted, task.image_id, "background", content, relevance, (), flag
    )


def test_one_task_a_class_list_and_neuron():
    tasks = listed()
    assert [about(task) for task in tasks] == [("insufficient", 7), ("excessive", 3), ("excessive", 7)]
    assert [(task.class_, task.predicted) for task in tasks] == [CLASSES, CLASSES, CLASSES[::-1]]
    assert len({task.image_id for task in tasks}) == 3
    assert [candidate.name for candidate in tasks[0].candidates] == ["sand", "beak"] and tasks[0].others == ("grass",)
    assert tasks[1].candidates == () and tasks[1].others == ("sand", "grass")
    assert highlighted(tasks[0]).name == "sand"  # what a stand-in would say
    with pytest.raises(DataError, match="blamed twice"):
        neuron_tasks(pd.concat([BLAMED, BLAMED]), CLASSES, dict.fromkeys(CLASSES, "bird"), LIKELY, OTHERS)
    with pytest.raises(DataError, match="mammal / pet"):
        neuron_tasks(BLAMED, CLASSES, {"bird": CLASSES[1]}, LIKELY, OTHERS)
    with pytest.raises(DataError, match="about no neuron"):
        about(image_tasks(1)[0])


def test_the_pack_comes_back_without_overlays(tmp_path):
    seen = []
    write_neuron_pack(tmp_path, listed(), lambda *key: seen.append(key) or sheet(*key))
    pack = Pack.load(tmp_path)
    assert seen == [(7, "bird"), (3, "bird"), (7, CLASSES[1])]
    assert [task.task_id for task in pack.tasks] == [task.task_id for task in listed()]
    assert all(set(pictures) == {"image", "controls"} for pictures in pack.pictures)
    assert len({pictures["image"] for pictures in pack.pictures}) == 3
    page = static_page(pack)
    data = json.loads(page.split('id="data" nonce="static">')[1].split("</script>")[0])
    assert [task["kind"] for task in data["tasks"]] == ["neuron"] * 3 and "share" not in json.dumps(data["tasks"])
    exported = json.loads(to_label_studio(pack))
    assert exported[0]["data"]["predicted_map"] == exported[0]["data"]["image"]
    assert "What do they share" in exported[0]["data"]["question"]


def test_answers_travel_and_become_names(tmp_path):
    tasks = listed()
    answers = [
        said(tasks[0], "Sand", 1),
        said(tasks[0], "the sand", 2, "ben"),
        said(tasks[0], "beak", 5, "eve"),
        said(tasks[1], "beak", 4),
        said(tasks[1], "grass", 2.5, "ben"),
        said(tasks[2], "sand", 3),
        said(tasks[2], "", None, "ben", "cannot tell"),
        said(tasks[2], "sand", 1, "eve", "cannot tell"),
    ]
    save_lines(tmp_path / "answers.jsonl", answers)
    check_answers(load_lines(tmp_path / "answers.jsonl", Answer), tasks, "answers")
    names = names_from_answers(from_csv(to_csv(answers), "csv", tasks), tasks)
    assert names.to_dict("records") == [
        {"neuron": 3, "class": "bird", "concept": "grass", "kind": "background"}
        | {"votes": 1, "relevance": 2.5, "spurious": True},
        {"neuron": 7, "class": "bird", "concept": "sand", "kind": "background"}
        | {"votes": 2, "relevance": 1.5, "spurious": True},
        {"neuron": 7, "class": CLASSES[1], "concept": "sand", "kind": "background"}
        | {"votes": 1, "relevance": 3.0, "spurious": False},
    ]
    assert names_from_answers([], tasks).empty


def test_answers_become_concept_sets():
    tasks = listed()
    answers = [said(tasks[0], "sand", 1, person) for person in ("ann", "ben")]
    answers += [said(tasks[1], name, 1, person) for name in ("grass", "sand") for person in ("ann", "ben")]
    answers += [said(tasks[2], "sand", 5, person) for person in ("ann", "ben")]
    answers.append(said(tasks[2], "sand", 1, "eve", "cannot tell"))
    found = sets_from_answers(answers, tasks, BLAMED, VoteRules(votes=2), CLASSES)
    (sand, grass) = found.classes["bird"].confounded
    assert (sand.name, sand.rival, sand.score, sand.votes) == ("sand", "", 0.5, 4)  # its strongest neuron is a lack
    assert (grass.name, grass.rival, grass.score, grass.votes) == ("grass", CLASSES[1], 0.4, 2)
    assert [concept.name for concept in found.classes[CLASSES[1]].valid] == ["sand"]
    few = sets_from_answers(answers, tasks, BLAMED, VoteRules(votes=3), CLASSES).classes["bird"]
    assert [concept.name for concept in few.confounded] == ["sand"]  # votes count over a class's neurons
    with pytest.raises(DataError, match="neuron 7 is not blamed"):
        sets_from_answers(answers, tasks, BLAMED[1:], VoteRules(), CLASSES)


def test_the_page_shows_a_sheet_and_offers_nothing_that_makes_no_sense(tmp_path):
    if BROWSER is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    write_neuron_pack(tmp_path, listed(), sheet)
    (tmp_path / "page.html").write_text(static_page(Pack.load(tmp_path)), encoding="utf-8")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        page.fill("#who", "ann")
        page.press("#who", "Tab")
        page.locator("#why", has_text="one neuron answers to most").wait_for()
        assert "Mistakes of bird hang on this neuron" in page.inner_text("#facts")
        for hidden in ("#overlay", "#overlays", "#telling"):
            assert not page.is_visible(hidden)
        assert page.locator("#flags button").all_inner_texts() == ["cannot tell"]
        page.click("body", position={"x": 2, "y": 2})
        for key in ("o", "Shift+A", "a", "2", "Enter"):  # the first two do nothing here
            page.keyboard.press(key)
        page.locator("#count", has_text="1 answered").wait_for()
        kept = page.evaluate("answers")
        assert wrong == []
        browser.close()
    answer = kept[listed()[0].task_id]
    assert (answer["content"], answer["relevance"], answer["valid"]) == ("sand", 2, [])
    assert (answer["image_id"], answer["class"], answer["rival"]) == ("7/bird", *CLASSES)
