"""Images for requests: every one once, whatever is blank, killed, full, or shared out."""

import errno
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aaca.runtime.errors import AacaError
from aaca.runtime.launch import launch
from aaca.runtime.stages import PROGRESS
from aaca.training.generate import batched, generate_images, redraws
from aaca.training.trainer import TrainerSpec
from tests.painting_toys import Noise, requests_of
from tests.toys import Killed

CPU = TrainerSpec(accelerator="cpu")


def generate(folder, painter, n=10, strengths=(1.0,), batch_size=3):
    return generate_images(requests_of(n, strengths), lambda device: painter, batch_size, folder, CPU)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def drawn(painter: Noise) -> list[int]:
    """Which requests were drawn at their first seed."""
    return sorted(index for call in painter.seen for index, seed in call if seed % 1000 == 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ten images, uninterrupted: two come with a later seed, one never."""
    folder, painter = tmp_path_factory.mktemp("whole"), Noise({2: 1, 4: 3, 7: 4})
    return generate(folder, painter), painter


def test_every_image_is_there_and_says_what_it_is(whole):
    folder, painter = whole
    requests = requests_of(10)
    assert sorted(file.name for file in folder.iterdir()) == [f"{i:07d}.png" for i in range(10) if i != 7]
    for index, redrawn in enumerate((0, 0, 1, 0, 3, 0, 0, None, 0, 0)):
        if redrawn is None:
            continue
        with Image.open(folder / f"{index:07d}.png") as image:
            seed = requests[index].seeds[redrawn]
            assert dict(image.text) == {"prompt": requests[index].prompt, "seed": str(seed), "redrawn": str(redrawn)}
            assert np.array_equal(np.asarray(image), Noise()([requests[index]], [seed])[0])
    assert (folder.parent / PROGRESS / "images" / "0000007.failed").is_file()
    assert max(map(len, painter.seen)) == 3 and drawn(painter) == list(range(10))


def test_only_blank_ones_are_drawn_again_with_their_next_seed_and_all_are_counted(whole):
    folder, painter = whole
    seeds = {index: [seed for call in painter.seen for i, seed in call if i == index] for index in range(10)}
    tries = [1, 1, 2, 1, 4, 1, 1, 4, 1, 1]
    assert seeds == {index: list(requests_of(10)[index].seeds[: tries[index]]) for index in range(10)}
    taken, counts = redraws(folder, range(10))
    assert taken == {0: 0, 1: 0, 2: 1, 3: 0, 4: 3, 5: 0, 6: 0, 8: 0, 9: 0}
    assert counts == {"redrawn": 4, "failed": 1}


def test_images_that_all_stay_blank_are_an_error_that_says_why(tmp_path):
    for _ in range(2):  # also when it is asked again
        with pytest.raises(AacaError, match=r"^generate: every one of 4 images is black, blank or not finite; .*dtype"):
            generate(tmp_path, Noise(dict.fromkeys(range(4), 4)), n=4)


@pytest.mark.parametrize(("calls", "there"), [(0, 0), (1, 2), (3, 5), (6, 6), (8, 8)])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes_and_draws_only_what_is_missing(
    tmp_path, whole, calls, there
):
    blank = {2: 1, 4: 3, 7: 4}
    first = Noise(blank, calls)
    with pytest.raises(Killed):
        generate(tmp_path, first)
    left = {int(file.stem) for file in (tmp_path / PROGRESS / "images").iterdir()}
    assert len(left) == there and not (tmp_path / "images").exists()
    second = pickle.loads(pickle.dumps(Noise(blank)))
    folder = generate(tmp_path, second)
    assert contents(folder) == contents(whole[0])
    assert drawn(second) == sorted(set(range(10)) - left)


def test_killed_while_the_images_are_moved_nothing_is_drawn_again(tmp_path, whole, monkeypatch):
    rename, moved = Path.rename, []

    def counting(self, target):
        if len(moved) == 4:
            raise Killed
        moved.append(self)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counting)
        with pytest.raises(Killed):
            generate(tmp_path, Noise({2: 1, 4: 3, 7: 4}))
    again = Noise()
    assert contents(generate(tmp_path, again)) == contents(whole[0])
    assert again.seen == []


def test_two_ranks_make_the_same_files(tmp_path, whole):
    names = launch("tests.painting_toys:draw", {"folder": str(tmp_path)}, 2)
    assert names == sorted(file.name for file in whole[0].iterdir())
    assert contents(tmp_path / "images") == contents(whole[0])
    assert (tmp_path / PROGRESS / "images" / "0000007.failed").is_file()


def test_a_full_disk_leaves_no_half_image_and_room_again_it_goes_on(tmp_path, whole, monkeypatch):
    save, saved = Image.Image.save, []

    def full(self, path, **more):
        saved.append(path)
        if len(saved) == 5:
            Path(path).write_bytes(b"\x89PNG half of it")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(self, path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space left on device"):
            generate(tmp_path, Noise())
    there = list((tmp_path / PROGRESS / "images").iterdir())
    assert sorted(file.name for file in there) == [f"{index:07d}.png" for index in range(4)]
    for file in there:
        Image.open(file).load()
    again = Noise({2: 1, 4: 3, 7: 4})
    folder = generate(tmp_path, again)
    assert drawn(again) == list(range(4, 10)) and len(list(folder.iterdir())) == 9


def test_a_batch_is_of_one_strength(tmp_path):
    painter = Noise()
    generate(tmp_path, painter, n=11, strengths=(0.25, 1.0, 0.5))
    assert all(len(strengths) == 1 for strengths in painter.strengths)
    assert [len(call) for call in painter.seen] == [3, 1, 3, 3, 1]
    assert drawn(painter) == list(range(11))
    found = batched(requests_of(7, (0.5, 1.0)), 2)
    assert [[request.index for request in batch] for batch in found] == [[0, 2], [4, 6], [1, 3], [5]]
    assert batched([], 4) == []
