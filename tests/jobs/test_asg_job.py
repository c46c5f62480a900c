"""The job `asg` on a folder that the shapes world wrote, clean and spoilt."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from aaca.data.shape_grammar import SIZE, write_shapes
from tests.jobs.conftest import Run

IMAGE = "train2014/COCO_train2014_000000000001"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, {"trn": 3, "val": 1, "tst": 1}, 4)
    return folder


@pytest.fixture
def spoilt(written, tmp_path) -> tuple[Path, Path]:
    """Copies of the graphs and the images; in one graph an object without a name, another 40 pixels too wide."""
    graphs, images = tmp_path / "graphs", tmp_path / "images"
    shutil.copytree(written / "annotation" / "regionfiles", graphs)
    shutil.copytree(written / "images", images)
    file = graphs / f"{IMAGE}.json"
    record = json.loads(file.read_text())
    region = next(one for one in record.values() if len(one["objects"]) > 1)
    region["objects"][0]["name"] = " "
    region["objects"][1]["w"] = SIZE + 40
    file.write_text(json.dumps(record))
    return graphs, images


def graphs_of(folder: Path) -> list[dict]:
    return [one for file in folder.rglob("*.json") for one in json.loads(file.read_text()).values()]


def asg(run: Run, tmp_path: Path, *arguments: object) -> tuple[int, str]:
    return run("asg", *map(str, arguments), f"paths.root={tmp_path / 'root'}")


def refused(run: Run, tmp_path: Path, *arguments: object) -> str:
    status, said = asg(run, tmp_path, *arguments)
    assert status == 1 and "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def test_a_clean_folder_passes_with_and_without_its_images(written, tmp_path, run):
    folder = written / "annotation" / "regionfiles"
    for more in ([], [f"images={written / 'images'}"]):
        status, said = asg(run, tmp_path, "validate", f"folder={folder}", *more)
        assert status == 0 and f"{len(graphs_of(folder))} graphs" in said
        assert "outside" not in said and "no image" not in said


def test_serious_problems_are_listed_and_end_the_job_with_a_status(spoilt, tmp_path, run):
    graphs, images = spoilt
    status, said = asg(run, tmp_path, "validate", f"folder={graphs}", f"images={images}")
    assert status == 1 and "box_outside: 1" in said and "empty_name: 1" in said
    assert f"{IMAGE} region" in said and f"outside the image of {SIZE}×{SIZE}" in said
    assert f"2 serious problems in {len(graphs_of(graphs))} graphs" in said
    status, said = asg(run, tmp_path, "validate", f"folder={graphs}")  # no image says how wide it is
    assert status == 1 and "1 serious problems" in said and "box_outside" not in said
    status, said = asg(run, tmp_path, "validate", f"folder={graphs}", f"images={images}", "most=1")
    assert status == 1 and said.count(f"{IMAGE} region") == 1 and "2 serious problems" in said


def test_graphs_are_held_against_photos_as_they_are_shown(tmp_path, run):
    lying, graphs = Image.new("RGB", (80, 40)), tmp_path / "graphs"
    exif = lying.getexif()
    exif[0x0112] = 6  # shown as 40×80
    graphs.mkdir()
    thing = {"object_id": 1, "name": "tower", "attributes": [], "x": 5, "y": 45, "w": 30, "h": 30}
    region = {"objects": [thing], "relationships": [], "phrase": "a tower"}
    (graphs / "one.json").write_text(json.dumps({"0": region}))
    lying.save(tmp_path / "one.jpg", exif=exif)
    status, said = asg(run, tmp_path, "validate", f"folder={graphs}", f"images={tmp_path}")
    assert status == 0 and "1 graphs" in said and "outside" not in said, said
    lying.save(tmp_path / "one.jpg")
    status, said = asg(run, tmp_path, "validate", f"folder={graphs}", f"images={tmp_path}")
    assert status == 1 and "outside the image of 80×40" in said


def test_what_cannot_be_read_is_a_problem_and_the_rest_is_looked_at(spoilt, tmp_path, run):
    graphs, images = spoilt
    (graphs / "broken.json").write_text("{")
    (images / f"{IMAGE}.png").write_text("no image")
    other = images / "train2014" / "COCO_train2014_000000000002.png"
    other.unlink()
    status, said = asg(run, tmp_path, "validate", f"folder={graphs}", f"images={images}")
    assert status == 1 and "Traceback" not in said
    assert "unreadable: 2" in said and "broken.json: not JSON" in said and "not a readable image" in said
    assert "no image: 1" in said and "3 serious problems" in said


def test_stats_counts_what_is_there(written, tmp_path, run):
    folder = written / "annotation" / "regionfiles"
    status, said = asg(run, tmp_path, "stats", f"folder={folder}", "limit=3")
    found = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    graphs = graphs_of(folder)
    nodes = [
        len(one["objects"]) + sum(len(it["attributes"]) for it in one["objects"]) + len(one["relationships"])
        for one in graphs
    ]
    assert status == 0 and int(found["graphs"]) == len(graphs)
    assert int(found["objects"]) == sum(len(one["objects"]) for one in graphs)
    assert int(found["relationships"]) == sum(len(one["relationships"]) for one in graphs)
    assert int(found["truncated"]) == sum(count > 3 for count in nodes) > 0
    assert found["serious"] == "0"


def test_stats_holds_boxes_against_the_images(spoilt, tmp_path, run):
    graphs, images = spoilt
    _, said = asg(run, tmp_path, "stats", f"folder={graphs}")
    assert "whole_image_boxes: None" in said and "box_outside" not in said and "no image" not in said
    (images / "train2014" / "COCO_train2014_000000000002.png").unlink()
    status, said = asg(run, tmp_path, "stats", f"folder={graphs}", f"images={images}")
    assert status == 0 and "'box_outside': 1" in said and "no image: 1" in said
    found = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    assert int(found["graphs"]) == len(graphs_of(graphs)) and int(found["whole_image_boxes"]) >= 0
    (images / f"{IMAGE}.png").write_text("no image")
    assert "not a readable image" in refused(run, tmp_path, "stats", f"folder={graphs}", f"images={images}")
    assert "no folder nowhere" in refused(run, tmp_path, "stats", f"folder={graphs}", "images=nowhere")


@pytest.mark.parametrize(
    ("action", "option", "readers"),
    [("validate", "limit=10", "stats"), ("stats", "most=3", "validate or draw"), ("validate", "output=here", "draw")],
)
def test_options_that_an_action_does_not_read_are_refused(action, option, readers, written, tmp_path, run):
    said = refused(run, tmp_path, action, f"folder={written}", option)
    assert said == f"{option.split('=')[0]}: given, but action is {action}; expected action={readers}"


def test_draw_writes_pictures_up_to_a_number(written, tmp_path, run):
    folder, output = written / "annotation" / "regionfiles", tmp_path / "drawn"
    arguments = (f"folder={folder}", f"images={written / 'images'}", f"output={output}")
    status, said = asg(run, tmp_path, "draw", *arguments, "most=3")
    files = sorted(output.iterdir())
    assert status == 0 and f"3 drawings in {output}" in said and len(files) == 3
    assert files[0].name == f"{IMAGE.replace('/', '_')}_0.png"
    sizes = [Image.open(file).size for file in files]
    assert all(width > 2 * SIZE and height > SIZE for width, height in sizes)


def test_a_graph_with_problems_is_drawn_as_far_as_it_goes(spoilt, tmp_path, run):
    graphs, images = spoilt
    status, said = asg(run, tmp_path, "draw", f"folder={graphs}", f"images={images}", "most=4")
    assert status == 0 and len(list((graphs / "drawn").glob("*.png"))) == 4, said


def test_errors_are_one_line(written, tmp_path, run):
    folder = f"folder={written / 'annotation' / 'regionfiles'}"
    assert refused(run, tmp_path, "validate").startswith("folder: ")
    assert "no such folder" in refused(run, tmp_path, "validate", "folder=nowhere")
    assert "no folder nowhere" in refused(run, tmp_path, "validate", folder, "images=nowhere")
    assert "no image of" in refused(run, tmp_path, "draw", folder, "images=nowhere")
    assert refused(run, tmp_path, "draw", folder).startswith("images: missing")
    assert refused(run, tmp_path, "paint", folder).startswith("action: 'paint'")
    assert "no graph" in refused(run, tmp_path, "validate", f"folder={written / 'images'}")
