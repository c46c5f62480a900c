import csv
import json

import numpy as np
import pytest

from aaca.data.scenegraph.edits import facts_of
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.discover.captions.mentions import facts_of_nodes
from aaca.discover.captions.records import Record, read_records, write_records
from aaca.runtime.errors import DataError


def name(number, word):
    return f"p1_COCO_val2014_{number:012d}__caption_{word}_attr_result.jpg"


def task(number, word, kind, content, relevance, **more):
    return {
        "task_id": f"{number}-{word}",
        "status": "completed",
        "params": {"attachments": [{"type": "image", "content": f"https://host/some/{name(number, word)}?token=a"}]},
        "response": {
            "annotations": {
                "content_type": {"type": "category", "field_id": "content_type", "response": [[kind] if kind else []]},
                "content": {"type": "text", "field_id": "content", "response": [[content]]},
                "relevance": {"type": "number", "field_id": "relevance", "response": [[relevance]]},
            }
        },
    } | more


TASKS = [
    task(42, 1, "object", "Dog", 4.4),
    task(42, 2, "attribute", "(dog,  Brown)", "2"),
    task(42, 3, "relationship", "(dog, lying on, red rug)", 1),
    task(7, 0, "", "", ""),
    task(7, 2, "object", "(a, b)", None),
    task(7, 5, "object", "cat", 5, status="pending"),
]
EXPECTED = [
    ("COCO_val2014_000000000042", 1, "object", ("dog",), 4.4),
    ("COCO_val2014_000000000042", 2, "attribute", ("dog", "brown"), 2.0),
    ("COCO_val2014_000000000042", 3, "relationship", ("dog", "lying on", "red rug"), 1.0),
    ("COCO_val2014_000000000007", 0, "", (), None),
    ("COCO_val2014_000000000007", 2, "object", (), None),
]


def told(records):
    return [(row.image, row.word, row.kind, row.parts, row.rating) for row in records.rows]


def test_tasks_are_read_and_what_they_lack_is_counted(tmp_path):
    (tmp_path / "tasks.json").write_text(json.dumps(TASKS))
    records = read_records(tmp_path / "tasks.json")
    assert told(records) == EXPECTED
    counts = {"images": 2, "answers": 5, "unfinished": 1, "unrated": 2, "blank": 1, "unreadable": 1}
    assert records.summary() == counts
    assert {image: len(rows) for image, rows in records.by_image().items()} == {EXPECTED[0][0]: 3, EXPECTED[3][0]: 2}


@pytest.mark.parametrize(
    "response",
    [
        {"content type": "attribute", "content text": "(dog, brown)", "relevance score": "3.5"},
        {"fields": [{"field_id": "Content Type", "value": "attribute"}, {"title": "content", "value": "(dog, brown)"},
                    {"field_id": "relevance", "value": 3.5}]},
        {"annotations": {"content_type": "attribute", "content": ["(dog, brown)"], "relevance": {"answer": [3.5]}}},
    ],
)  # fmt: skip
def test_other_shapes_of_a_response_are_the_same_answer(tmp_path, response):
    page = {"docs": [{"attachment": name(3, 4), "response": response}], "next": None}
    (tmp_path / "tasks.json").write_text(json.dumps(page))
    assert told(read_records(tmp_path / "tasks.json")) == [
        ("COCO_val2014_000000000003", 4, "attribute", ("dog", "brown"), 3.5)
    ]


def test_what_is_written_as_a_table_is_read_back(tmp_path):
    (tmp_path / "tasks.json").write_text(json.dumps(TASKS))
    rows = read_records(tmp_path / "tasks.json").rows
    write_records(
        tmp_path / "table.csv", [*rows, Record(name(9, 0), "COCO_val2014_000000000009", 0, "object", ("x",), 2.7, "3")]
    )
    back = read_records(tmp_path / "table.csv").rows
    assert back[:-1] == rows
    assert (back[-1].region, back[-1].sample, back[-1].rating) == ("3", "COCO_val2014_000000000009_3", 2.7)
    with (tmp_path / "table.csv").open() as stream:
        assert next(csv.reader(stream)) == ["file", "region", "content_type", "content", "relevance"]


def test_a_table_may_come_without_regions_and_from_a_spreadsheet(tmp_path):
    header = "\ufefffile,content_type,content,relevance\r\n"
    text = f'{header}{name(1, 2)},object,dog,3\r\n{name(1, 3)},relation,"(a, on, b)",\r\n'
    (tmp_path / "table.csv").write_bytes(text.encode())
    records = read_records(tmp_path / "table.csv")
    assert [(row.kind, row.parts, row.rating, row.region) for row in records.rows] == [
        ("object", ("dog",), 3.0, ""),
        ("relationship", ("a", "on", "b"), None, ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,content_type,content\nx,y,z\n", "no column relevance"),
        (f"file,content_type,content,relevance\n{name(1, 1)},object,a,6\n", "line 2: relevance '6'"),
        (f"file,content_type,content,relevance\n{name(1, 1)},object,a,nan\n", "relevance 'nan'"),
        (f"file,content_type,content,relevance\n{name(1, 1)},thing,a,3\n", "content type 'thing'"),
        ("file,content_type,content,relevance\ncat.jpg,object,a,3\n", "file 'cat.jpg'"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / "t.csv")


def test_wrong_tasks_are_named(tmp_path):
    for value, message in (
        ("{", "not readable"),
        ('{"a": 1}', "not a list"),
        ("[1]", "task 0: int"),
        ("[{}]", "task 0: file ''"),
    ):
        (tmp_path / "t.json").write_text(value)
        with pytest.raises(DataError, match=message):
            read_records(tmp_path / "t.json")
    with pytest.raises(DataError, match="No such file"):
        read_records(tmp_path / "none.json")


def test_facts_of_nodes_are_those_of_the_graph():
    things = (GraphObject(7, "Cat", ("red", "Tiny"), (0, 0, 2, 2)), GraphObject(3, "dog", ("big",), (4, 4, 2, 2)))
    graph = SceneGraph(things, (Relationship(0, 3, 7, "left  of"), Relationship(1, 7, 3, "under")))
    nodes, facts = nodes_of(graph), facts_of(graph)
    assert facts_of_nodes(nodes) == [facts[owner] for owner in nodes.owners]
    assert facts_of_nodes(nodes)[5] == ("dog", "left of", "cat")
    assert np.array_equal([len(fact) - 1 for fact in facts_of_nodes(nodes)], nodes.types)
