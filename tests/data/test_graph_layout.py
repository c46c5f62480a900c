import json

import numpy as np
import pytest

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.runtime.errors import DataError
from tests.graph_toys import (
    FOLDERS,
    HEIGHT,
    WIDTH,
    F,
    G,
    corners,
    image_feature,
    region_feature,
    region_path,
    write_array,
    write_tree,
)


def test_released_paths(tmp_path):
    coco, genome, ega = Layout.coco(tmp_path), Layout.visual_genome(tmp_path), Layout.ega(tmp_path)

    def below(path):
        return str(path.relative_to(tmp_path))

    assert below(coco.samples_file("trn")) == "annotation/controllable/regionfiles/trn_names.npy"
    assert below(coco.images_file("tst")) == "annotation/controllable/public_split/tst_names.npy"
    assert below(coco.globals_file("val")) == "ordered_feature/MP/resnet101.ctrl/val_ft.npy"
    assert list(map(below, coco.objects)) == [
        "ordered_feature/SA/X_101_32x8d/objrels",
        "ordered_feature/SA/X_101_32x8d/o2/objrels",
    ]
    assert below(coco.references_file("tst")) == "annotation/controllable/cleaned_tst_region_descriptions.json"
    assert below(genome.images_file("trn")) == "public_split/trn_names.npy"
    assert below(genome.samples_file("trn")) == "annotation/regionfiles/trn_names.npy"
    assert (coco.box_mode, genome.box_mode, ega.box_mode) == ("inclusive", "exclusive", "inclusive")
    assert below(ega.globals_file("val_sub_opt")) == "features/MP/resnet101.ctrl/val_sub_opt_ft.npy"
    assert below(ega.references_file("val_sub")) == "annotation/cleaned_val_sub_region_descriptions.json"
    assert ega.sets == ("trn", "val", "val_sub", "val_sub_opt")


def records_of(graphs: GraphSet, i: int) -> dict:
    return json.loads((graphs.layout.regions / f"{graphs.image_id(i)}.json").read_text())


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_layout_is_read_whole(tmp_path, kind):
    layout = write_tree(tmp_path, kind)
    extra = 0 if kind == "visual_genome" else 1
    for set_name in layout.sets:
        graphs = GraphSet.open(layout, set_name, limit=30)
        assert len(graphs) == 9
        assert (graphs.feature_size, graphs.global_size) == (F, G)
        for i in range(len(graphs)):
            image_id, region_id = graphs.samples[i].tolist()
            record, item = records_of(graphs, i)[region_id], graphs.item(i)
            assert graphs.name(i) == f"{image_id}_{region_id}"
            assert graphs.graph(i).to_region() == record
            assert graphs.phrase(i) == record["phrase"]
            assert graphs.words.decode(item.words) == record["phrase"]
            assert item.row == i
            np.testing.assert_array_equal(item.image, image_feature(image_id))
            things = record["objects"]
            boxes = corners(record, extra)
            own = [box for it, box in zip(things, boxes, strict=False) for _ in range(1 + len(it["attributes"]))]
            expected = [region_feature(image_id, box) for box in [*own, *boxes[len(things) :]]]
            np.testing.assert_array_equal(item.features, np.array(expected, np.float32))
            assert item.features.dtype == item.image.dtype == np.float32
    assert graphs.regions(0).size == (WIDTH, HEIGHT)


def test_references_are_the_cleaned_ones_where_there_are_any(tmp_path):
    layout = write_tree(tmp_path)
    plain, tested = GraphSet.open(layout, "val"), GraphSet.open(layout, "val_sub")
    assert plain.references() == {plain.name(i): [plain.phrase(i)] for i in range(9)}
    assert tested.references() == {tested.name(i): [f"{tested.phrase(i)} indeed"] for i in range(9)}
    write_array(layout.samples_file("val_sub"), tested.samples[:2])
    assert len(GraphSet.open(layout, "val_sub").references()) == 2
    layout.references_file("val_sub").write_text("{}")
    with pytest.raises(DataError, match="no phrase of region '7000'"):
        tested.references()


def path_json(layout: Layout, **changes) -> dict:
    return {
        "output_dir": "results",
        "word2int_file": str(layout.words / "word2int.json"),
        "int2word_file": str(layout.words / "int2word.npy"),
        "mp_ft_file": {one: str(layout.globals_file(one)) for one in layout.sets},
        "name_file": {one: str(layout.images_file(one)) for one in layout.sets},
        "region_anno_dir": dict.fromkeys(layout.sets, str(layout.regions)),
        "obj_ft_dir": {one: [str(folder) for folder in layout.objects] for one in layout.sets},
        **changes,
    }


@pytest.mark.parametrize("kind", FOLDERS)
def test_path_json_gives_the_same_layout(tmp_path, kind):
    layout = write_tree(tmp_path, kind)
    file = tmp_path / "path.json"
    file.write_text(json.dumps(path_json(layout)))
    assert Layout.from_path_json(file) == layout
    assert Layout.from_path_json(file, "exclusive").box_mode == "exclusive"
    relative = json.dumps(path_json(layout)).replace(f"{tmp_path}/", "")
    file.write_text(relative)
    assert Layout.from_path_json(file) == layout
    single = {one: str(layout.objects[0]) for one in layout.sets}
    file.write_text(json.dumps(path_json(layout, obj_ft_dir=single)))
    assert Layout.from_path_json(file).objects == layout.objects[:1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name_file": {}}, "name_file has no sets"),
        ({"mp_ft_file": {"trn": "a/trn_ft.npy"}}, "mp_ft_file: nothing for set 'val'"),
        (
            {"mp_ft_file": dict.fromkeys(("trn", "val", "val_sub", "val_sub_opt"), "x.npy")},
            "x.npy; expected trn_ft.npy",
        ),
        ({"word2int_file": 3}, "word2int_file: 3; expected a path"),
        ({"int2word_file": "elsewhere/int2word.npy"}, "lie in different folders"),
        ({"region_anno_dir": {"trn": "a", "val": "b", "val_sub": "b", "val_sub_opt": "b"}}, "one folder for all sets"),
    ],
)
def test_a_wrong_path_json_is_named(tmp_path, changes, message):
    file = tmp_path / "path.json"
    file.write_text(json.dumps(path_json(Layout.ega(tmp_path), **changes)))
    with pytest.raises(DataError, match=message):
        Layout.from_path_json(file)
    file.write_text("{}")
    with pytest.raises(DataError, match="no word2int_file, int2word_file"):
        Layout.from_path_json(file)


def test_a_file_is_found_in_any_folder(tmp_path):
    layout = write_tree(tmp_path, "coco")
    graphs = GraphSet.open(layout, "trn")
    assert {region_path(layout, graphs.image_id(i)).parent for i in range(9)} == set(layout.objects)
    assert len([graphs.item(i) for i in range(9)]) == 9
