import hashlib
import json

from aaca.world.pack import NOT_DRAWN, PACK, load_pack


def test_every_file_is_there_and_unchanged():
    pieces = load_pack().all
    assert len(pieces) == 300
    for piece in pieces:
        assert hashlib.sha256(piece.file.read_bytes()).hexdigest()[:16] == piece.sha, piece.path
    listed = {piece.path for piece in pieces}
    assert {str(file.relative_to(PACK)) for file in PACK.rglob("*.webp")} == listed


def test_licences_travel_with_the_images():
    page = (PACK / "LICENCES.md").read_text(encoding="utf-8")
    for entry in json.loads((PACK / "manifest.json").read_text(encoding="utf-8")):
        assert entry["licence"] and entry["origin"]
        assert entry["package"].split(" (")[0] in page or entry["package"].split()[0] in page
        if entry["licence"] not in {"public-domain"}:
            assert entry["licence"] in page, entry["licence"]
    assert "GNU GENERAL PUBLIC LICENSE" in (PACK / "GPL-2.txt").read_text(encoding="utf-8")


def test_pixels_have_the_channels_of_their_kind_and_the_size_of_the_manifest():
    sizes = {entry["path"]: entry["size"] for entry in json.loads((PACK / "manifest.json").read_text(encoding="utf-8"))}
    for piece in load_pack().all:
        pixels = piece.pixels()
        width, height = sizes[piece.path]
        assert pixels.shape == (height, width, 4 if piece.kind in ("object", "concept") else 3)
        assert pixels is piece.pixels() and not pixels.flags.writeable


def test_no_source_crosses_a_split():
    home: dict[str, str] = {}
    for piece in load_pack().all:
        assert home.setdefault(piece.source, piece.split) == piece.split, piece.source


def test_pieces_are_filtered_and_grouped():
    pack = load_pack()
    train_birds = pack.pieces("object", "bird", "train")
    assert len(train_birds) == 23 and {(p.label, p.split) for p in train_birds} == {("bird", "train")}
    groups = pack.groups("object", "produce", "train")
    assert sum(len(group) for group in groups) == 34
    apples = next(group for group in groups if group[0].group == "apple")
    assert len(apples) == 5 and {piece.source for piece in apples} == {"object/produce/apple"}


def test_files_that_are_not_drawn_exist_and_leave_train_and_test_alone():
    pack = load_pack()
    for path in NOT_DRAWN:
        (piece,) = [piece for piece in pack.all if piece.path == path]
        assert piece.split == "val" and piece not in pack.pieces(piece.kind, piece.label)
