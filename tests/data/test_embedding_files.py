"""Stores from and as files of one tensor: what goes out comes in again, anything else is one line and never runs."""

import numpy as np
import pytest
import torch

from aaca.data.embedding_files import export_tensor, import_tensor
from aaca.runtime.errors import DataError
from tests.data.embedding_toys import N, vectors, written


@pytest.mark.parametrize("name", ["x.npy", "x.pth", "clip_RN50_out"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tensors_go_out_and_come_in_again(tmp_path, name, dtype):
    rows = vectors()
    export_tensor(written(tmp_path / "a", rows, dtype), tmp_path / name)
    read = np.load(tmp_path / name) if name == "x.npy" else torch.load(tmp_path / name, weights_only=True).numpy()
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, rows.astype(dtype))
    store = import_tensor(tmp_path / name, tmp_path / "b", labels=np.arange(N), about={"encoder": "RN50"})
    np.testing.assert_array_equal(store.gather(np.arange(N)), rows.astype(dtype).astype(np.float32))
    assert store.labels[5] == 5 and store.about["encoder"] == "RN50" and len(store.about["imported"]) == 64


@pytest.mark.parametrize("new_format", [True, False])
def test_torch_files_of_either_format_and_bfloat16_are_read(tmp_path, new_format):
    tensor = torch.from_numpy(vectors()).bfloat16().requires_grad_()
    torch.save(tensor, tmp_path / "x", _use_new_zipfile_serialization=new_format)
    store = import_tensor(tmp_path / "x", tmp_path / "s")
    np.testing.assert_array_equal(store.block(0, N), tensor.detach().float().numpy())


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Hostile(), "not a file of one tensor"),
        ({"a": torch.zeros(2, 2)}, "dict; expected one tensor"),
        (torch.zeros(3), r"float32 \[3\]; expected one tensor of floats"),
        (torch.zeros(3, 2, dtype=torch.long), r"int64 \[3, 2\]; expected"),
        (torch.zeros(0, 2), r"float32 \[0, 2\]; expected"),
    ],
)
def test_other_torch_files_are_one_line(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(DataError, match=message) as caught:
        import_tensor(tmp_path / "x.pt", tmp_path / "s")
    assert "\n" not in str(caught.value) and not (tmp_path / "s").exists()


def test_missing_broken_and_pickled_arrays_are_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"no tensor")
    (tmp_path / "y.npy").write_bytes(b"no array")
    np.save(tmp_path / "z.npy", np.array([Hostile()], dtype=object))
    for name in ("x", "y.npy", "z.npy", "missing"):
        with pytest.raises(DataError, match=f"{name}: not a file of one tensor"):
            import_tensor(tmp_path / name, tmp_path / "s")
