"""Images into embedding stores: the right vectors in the right rows, and the same bits after an interruption."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aaca.data.embedding_writer import EmbeddingWriter
from aaca.data.embeddings import EmbeddingStore
from aaca.data.features import FeatureStore
from aaca.data.transforms import EvalTransform, normalise
from aaca.models.classifier import Classifier
from aaca.models.zero_shot import ZeroShot
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import read_json
from aaca.runtime.ranks import Ranks
from aaca.runtime.stages import PROGRESS
from aaca.training import embed
from aaca.training.embed import REFUSED, STORE, embed_table, embed_tars
from aaca.training.trainer import TrainerSpec
from tests.data.test_webdataset_tars import encoded, write
from tests.models.test_zero_shot import NAMES, toy_image_text
from tests.toys import Killed, square_table, tiny_vit

N, BATCH, SHARD = 22, 4, 5
ABOUT = {"encoder": "toy"}
CPU = TrainerSpec(accelerator="cpu")


def network() -> Classifier:
    torch.manual_seed(0)
    return tiny_vit().build(2, 0.0).eval()


def by_hand(classifier: Classifier, images: list[np.ndarray]) -> np.ndarray:
    """Each image alone."""
    transform = EvalTransform(classifier.image_size)
    with torch.no_grad():
        pixels = [normalise(transform(image)[None].float() / 255, classifier.mean, classifier.std) for image in images]
        return torch.cat([classifier.embed(one)[0] for one in pixels]).numpy()


def dies_at(monkeypatch, owner, name: str, count: int) -> list[int]:
    """The method dies at its count-th call (0: never); the calls so far, in a list of one number."""
    method, calls = getattr(owner, name), [0]

    def counting(*given, **more):
        calls[0] += 1
        if calls[0] == count:
            raise Killed
        return method(*given, **more)

    monkeypatch.setattr(owner, name, counting)
    return calls


def embedded(table, folder: Path, dtype="float32", every: float = 0.0) -> EmbeddingStore:
    embed_table(network(), table, folder, CPU, BATCH, ABOUT, dtype, SHARD, every=every)
    return EmbeddingStore.open(folder / STORE).verify()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_the_classifier_s_embeddings_in_the_table_s_order(dtype, tmp_path):
    table = square_table(tmp_path, N)
    store = embedded(table, tmp_path / "out", dtype)
    wanted = by_hand(network(), [table.image(row) for row in range(N)])
    assert (store.n, store.dtype, store.about, len(store.shards)) == (N, dtype, ABOUT, 5)
    np.testing.assert_allclose(store.gather(np.arange(N)), wanted, rtol=2e-3 if dtype == "float16" else 1e-4, atol=2e-3)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.05  # rows could not be mixed up unseen
    assert list(store.keys) == list(table.ids) and store.labels.tolist() == table.labels.tolist()
    assert list(store.groups) == list(table.frame["group"])


def test_killed_in_the_loop_and_again_in_the_copy_it_goes_on_to_the_same_content(tmp_path, monkeypatch):
    table = square_table(tmp_path, N)
    whole = embedded(table, tmp_path / "whole")
    monkeypatch.setattr(embed, "ROWS", 4)
    with monkeypatch.context() as patch:
        dies_at(patch, FeatureStore, "write", 4)
        with pytest.raises(Killed):
            embedded(table, tmp_path / "cut")
    with monkeypatch.context() as patch:
        written = dies_at(patch, FeatureStore, "write", 0)
        dies_at(patch, EmbeddingWriter, "add", 4)  # 12 rows are added, 10 of them in shards
        with pytest.raises(Killed):
            embedded(table, tmp_path / "cut")
    assert written == [3]  # batches 4 to 6
    assert not (tmp_path / "cut" / STORE / "manifest.json").exists()
    written, added = dies_at(monkeypatch, FeatureStore, "write", 0), dies_at(monkeypatch, EmbeddingWriter, "add", 0)
    again = embedded(table, tmp_path / "cut")
    assert (written, added) == ([0], [3])  # rows 10 … 21
    assert again.content == whole.content
    assert embedded(table, tmp_path / "cut").content == whole.content and added == [3]  # it was complete


def test_what_is_in_the_folder_must_be_of_the_same_kind(tmp_path):
    table = square_table(tmp_path, N)
    embedded(table, tmp_path / "out")
    with pytest.raises(DataError, match="another kind"):
        embedded(table, tmp_path / "out", "float16")


@torch.no_grad()
def test_raw_vectors_of_an_image_text_model_normalised_are_its_unit_vectors():
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    unit, raw = (ZeroShot(toy_image_text(), NAMES, raw=raw).eval() for raw in (False, True))
    (vectors, logits), (plain, same) = unit.embed(images), raw.embed(images)
    torch.testing.assert_close(torch.nn.functional.normalize(plain, dim=1), vectors)
    assert torch.equal(logits, same)
    assert (plain.norm(dim=1) - 1).abs().min() > 0.1


# ---- tars -----------------------------------------------------------------------------------------------------------

IMAGES = 13


@pytest.fixture
def tars(tmp_path) -> Path:
    """13 images in two tars; before, between and behind them members that nobody can read, and a damaged tar."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number, rows in enumerate((range(7), range(7, IMAGES))):
        members = [("first.jpg", b"broken")]
        for row in rows:
            members += [(f"{row:03d}.png", encoded(19 * row)), (f"{row:03d}.txt", b"text"), (f"x{row}.jpg", b"broken")]
        write(folder / f"{number}.tar", members)
    (folder / "2.tar").write_bytes(b"no tar at all" * 100)
    return folder


def tarred(tars: Path, folder: Path, shard_rows: int = 4) -> tuple[str, list[dict[str, str]]]:
    """(content, what was refused)."""
    embed_tars(network(), tars, folder, "cpu", 3, ABOUT, "float32", shard_rows)
    return EmbeddingStore.open(folder / STORE).verify().content, read_json(folder / REFUSED)["refused"]


def test_the_images_of_tars_are_embedded_and_what_is_broken_is_listed(tars, tmp_path):
    refused = tarred(tars, tmp_path / "out")[1]
    store = EmbeddingStore.open(tmp_path / "out" / STORE)
    assert list(store.keys) == [f"{int(row > 6)}/{row:03d}" for row in range(IMAGES)]
    assert set(store.labels) == {-1} and set(store.groups) == {""}
    images = [np.full((4, 6, 3), (19 * row, 0, 255 - 19 * row), dtype=np.uint8) for row in range(IMAGES)]
    np.testing.assert_allclose(store.gather(np.arange(IMAGES)), by_hand(network(), images), rtol=1e-4, atol=1e-5)
    assert len(refused) == IMAGES + 2 + 1
    assert [row["path"] for row in refused[:2]] == [f"{tars}/0.tar/first.jpg", f"{tars}/0.tar/x0.jpg"]
    assert refused[-1]["path"] == f"{tars}/2.tar"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_tars_killed_at_any_batch_end_with_the_same_content_and_nothing_is_listed_twice(
    count, tars, tmp_path, monkeypatch
):
    whole = tarred(tars, tmp_path / "whole")
    with monkeypatch.context() as patch:
        dies_at(patch, EmbeddingWriter, "add", count)
        with pytest.raises(Killed):
            tarred(tars, tmp_path / "cut")
    added = dies_at(monkeypatch, EmbeddingWriter, "add", 0)
    assert tarred(tars, tmp_path / "cut") == whole
    done = (count - 1) * 3 // 4 * 4  # rows in shards
    assert added == [-(-(IMAGES - done) // 3)]
    assert (tmp_path / "cut" / PROGRESS).is_dir()  # which the stage takes away


def test_tars_are_read_by_one_process_and_without_an_image_there_is_no_store(tars, tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    write(tmp_path / "none" / "0.tar", [("a.jpg", b"broken")])
    with pytest.raises(DataError, match="no embedding was written"):
        tarred(tmp_path / "none", tmp_path / "out")
    monkeypatch.setattr(embed, "current", lambda: Ranks(0, 2))
    with pytest.raises(ConfigError, match=r"^trainer\.devices: tars are read by one process"):
        tarred(tars, tmp_path / "two")
