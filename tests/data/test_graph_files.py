import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aaca.data.scenegraph.files import read_graphs, statistics, walk, write_graphs
from aaca.data.scenegraph.graph import SceneGraph
from aaca.runtime.errors import DataError
from tests.data.scene_graph_toys import random_region, region, rider

BOX = (0, 0, 4, 4)


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = {str(rng.integers(10**6)): random_region(rng) for _ in range(8)}
    before, after = tmp_path / "a.json", tmp_path / "train2014" / "b.json"
    before.write_text(json.dumps(records))
    graphs = read_graphs(before)
    write_graphs(after, graphs)
    assert json.loads(after.read_text()) == records
    assert read_graphs(after) == graphs and list(graphs) == list(records)
    assert [path.name for path in after.parent.iterdir()] == ["b.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_graphs(tmp_path / "a.json", {"1": rider()})
    with pytest.raises(AttributeError):
        write_graphs(tmp_path / "a.json", {"1": rider(), "2": None})  # type: ignore[dict-item]
    assert read_graphs(tmp_path / "a.json") == {"1": rider()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "a.json: not JSON"),
        (b"[" * 10**5, "a.json: not JSON"),
        (b"\xff\xfe{}", "a.json: not JSON"),
        (b"[]", "a.json: list; expected a JSON object"),
        (
            b'{"objects": [], "relationships": [], "phrase": "a"}',
            "a.json: one region record alone; expected {region id: ",
        ),
        (b'{"7": {"objects": [{"object_id": 1}]}}', r"a.json: region 7: objects\[0\].x: missing"),
        (
            b'{"7": {"objects": [], "relationships": [{"relationship_id": 1}]}}',
            r"region 7: relationships\[0\].subject_id",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_graphs(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.json: cannot be read \(No such file"):
        read_graphs(tmp_path / "gone.json")
    with pytest.raises(DataError, match="no such folder"):
        list(walk(tmp_path / "gone"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for image, regions in (("val2014/b", "12"), ("train2014/COCO.1", "9"), ("a", "21"), ("empty", "")):
        write_graphs(tmp_path / f"{image}.json", {name: region((int(name), image, (), BOX)) for name in regions})
    (tmp_path / "trn_names.npy").write_bytes(b"")
    (tmp_path / ".a.json.tmp.json").write_bytes(b"")
    return tmp_path


def test_a_folder_is_walked_in_order_with_slashes_in_the_names(folder: Path) -> None:
    found = list(walk(folder))
    assert [(it.image, it.region) for it in found] == [
        *(("a", "2"), ("a", "1"), ("train2014/COCO.1", "9"), ("val2014/b", "1"), ("val2014/b", "2")),
    ]
    assert [it.graph.objects[0].name for it in found] == [it.image for it in found]
    assert {it.image: read_graphs(folder / f"{it.image}.json")[it.region] for it in found} == {
        it.image: it.graph for it in found
    }


def test_a_broken_file_stops_the_walk_or_is_handed_over(folder: Path) -> None:
    (folder / "b.json").write_text("{")
    stream = walk(folder)
    assert [next(stream).image for _ in range(2)] == ["a", "a"]  # files behind it are not yet opened
    with pytest.raises(DataError, match=r"b\.json: not JSON"):
        next(stream)
    errors: list[DataError] = []
    assert [it.image for it in walk(folder, errors.append)][2:] == ["train2014/COCO.1", "val2014/b", "val2014/b"]
    assert len(errors) == 1 and "b.json: not JSON" in str(errors[0])


def test_statistics_by_hand() -> None:
    things = [(k, f"thing{k}", ("red",), (k, k, 3, 3)) for k in range(5)]
    chain = region(*things, joins=tuple((k, k + 1, "on") for k in range(4)))  # 14 nodes, 4 of them relationships
    twins = region((1, "cup", (), BOX), (2, "Cup", ("cup",), BOX))
    broken = region((1, "cup", (), BOX), joins=((1, 9, "on"),))
    graphs = [rider(), chain, twins, broken, region()]
    found = statistics(iter(graphs), sizes=iter([(64, 48)] * 5))
    assert found == {
        "graphs": 5,
        "objects": 4 + 5 + 2 + 1,
        "attributes": 4 + 5 + 1,
        "relationships": 2 + 4 + 1,
        "duplicate_names": 1,
        "serious": 2,
        "unusable": 1,
        "truncated": 1,
        "relationships_lost": 4,
        "limit": 10,
        "policy": "objects_first",
        "disconnected_share": 2 / 5,
        "whole_image_boxes": 1,
        "problems": {"disconnected": 2, "junk_attribute": 1, "no_object": 1, "unknown_object": 1, "whole_image": 1},
    }
    blind = statistics(graphs)
    assert blind["whole_image_boxes"] is None and "whole_image" not in blind["problems"]
    assert statistics(graphs, policy="reserve_relations")["relationships_lost"] == 0
    assert statistics(graphs, limit=14)["truncated"] == 0


def test_statistics_holds_no_more_than_a_graph_at_a_time() -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = 0

    def stream() -> Iterator[SceneGraph]:
        nonlocal most
        for k in range(300):
            graph = region((k, "cup", (), BOX), (k + 1, "box", (), BOX))
            alive.add(graph.objects[0])
            most = max(most, len(alive))
            yield graph

    found = statistics(stream())
    assert found["graphs"] == 300 and found["disconnected_share"] == 1 and most <= 3
    assert statistics([])["disconnected_share"] == 0


def test_sizes_that_do_not_match_the_graphs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        statistics([rider(), rider()], sizes=[(64, 48)])
