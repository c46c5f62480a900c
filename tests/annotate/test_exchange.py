"""Answers elsewhere and back: CSV, Label Studio, Scale-style records; what does not fit is named."""

import csv
import io
import json
from dataclasses import replace

import pytest

from aaca.annotate.exchange import from_csv, from_label_studio, from_scale, to_csv, to_label_studio, to_scale
from aaca.annotate.pack import Pack
from aaca.annotate.task import Answer
from aaca.runtime.errors import DataError
from tests.annotate.toys import CLASSES, pack_folder, tasks


def answers():
    def said(number, person, *rest):
        task = tasks(3)[number]
        rival = "" if task.predicted == task.class_ else task.predicted
        return Answer(task.task_id, person, task.class_, rival, task.image_id, *rest)

    return [
        said(0, "ann", "background", "sand", 1.0, ("beak", "wings"), "", 3.5, "t"),
        said(1, "ben", "object", "=1+1", 4.4, (), "ambiguous image", 2.0, "t"),
        said(2, "ann", "object", "", None, (), "cannot tell", 1.0, "t"),
    ]


def test_csv_there_and_back_and_no_formula_in_it():
    text = to_csv(answers())
    assert from_csv(text, "file", tasks()) == answers()
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert "'=1+1" in cells and not any(cell.startswith(("=", "+", "@")) for cell in cells)


def test_records_of_three_fields_there_and_back():
    back = from_scale(to_scale(answers()), "file", tasks())
    told = [(a.task_id, a.annotator, a.type, a.content, a.relevance) for a in answers()]
    assert [(a.task_id, a.annotator, a.type, a.content, a.relevance) for a in back] == told
    record = {"task_id": "failure/image-0", "content_type": "Relationship", "highlighted_content": "(a,on,b)"}
    found = from_scale(json.dumps([{**record, "relevance": 2.6}]), "file", tasks())[0]
    assert (found.type, found.relevance, found.annotator, found.class_) == ("relation", 2.6, "scale", CLASSES[0])


def test_label_studio_gets_pictures_and_gives_answers(tmp_path):
    pack = Pack.load(pack_folder(tmp_path, 3))
    exported = json.loads(to_label_studio(pack))
    assert [entry["data"]["task_id"] for entry in exported] == [task.task_id for task in pack.tasks]
    assert all(entry["data"]["image"].startswith("data:image/webp;base64,") for entry in exported)
    assert all("highlighted part" in entry["data"]["question"] for entry in exported)
    asked = replace(pack, tasks=[replace(task, kind="suspect", about="sand") for task in pack.tasks])
    assert all("write 'sand'" in entry["data"]["question"] for entry in json.loads(to_label_studio(asked)))
    said = [
        {"from_name": "content", "to_name": "image", "type": "textarea", "value": {"text": ["sand"]}},
        {"from_name": "type", "to_name": "image", "type": "choices", "value": {"choices": ["background"]}},
        {"from_name": "relevance", "to_name": "image", "type": "rating", "value": {"rating": 2}},
        {"from_name": "valid", "to_name": "image", "type": "textarea", "value": {"text": ["beak", "wings"]}},
    ]
    annotations = [
        {"completed_by": {"email": "ann@x.org"}, "lead_time": 4.5, "result": said},
        {"completed_by": 7, "result": [], "was_cancelled": True},
        {"completed_by": 7, "result": [{"from_name": "flag", "value": {"choices": ["label wrong"]}}]},
    ]
    text = json.dumps([{**exported[0], "annotations": annotations}])
    first, second = from_label_studio(text, "file", pack.tasks)
    assert (first.annotator, first.content, first.type, first.relevance) == ("ann@x.org", "sand", "background", 2)
    assert first.valid == ("beak", "wings") and first.seconds == 4.5
    assert (second.annotator, second.flag, second.relevance) == ("7", "label wrong", None)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (from_csv, "a,b\n1,2\n", "file: no column 'task_id'"),
        (from_csv, "task_id,annotator,content,relevance\nx,ann,sand,1\n", "file: line 2: task_id: 'x' is none"),
        (from_csv, "task_id,annotator,content,relevance\nfailure/image-0,ann,sand,9\n", "line 2: relevance"),
        (from_csv, "task_id,annotator,content,relevance\nfailure/image-0,ann,sand,low\n", "line 2: .*low"),
        (from_scale, "{", "file: not JSON"),
        (from_scale, "{}", "file: expected a list"),
        (from_scale, '[{"task_id": "failure/image-0"}]', "record 1: content_type: missing"),
        (from_label_studio, '[{"id": 3, "data": {}, "annotations": [{"result": []}]}]', "task 3: task_id"),
    ],
)
def test_what_does_not_fit_is_named(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text, "file", tasks())
