"""`mean_spectrum`: how strong every frequency is in given images, in the space that MACO writes its phases in."""

import numpy as np
import torch
from torch import Tensor

from aaca.concepts.illusion.parameters import colour_matrix
from aaca.runtime.errors import DataError

CHUNK = 256  # images transformed at once


def mean_spectrum(images: np.ndarray) -> Tensor:
    """Mean magnitude `[3, S, S//2+1]` float32 of images uint8 `[N, S, S, 3]`.

    Measured where MACO works: before the sigmoid, along independent directions of colour. The constant part is 0: a
    mean of absolute brightnesses would make every image bright, and MACO's own images are centred, too.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"spectrum: images {images.dtype} {images.shape}; expected uint8 [N, S, S, 3]")
    if not len(images):
        raise DataError("spectrum: no images; expected 1 or more")
    size = images.shape[1]
    to_directions = torch.linalg.inv(colour_matrix().double())
    total = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
    for start in range(0, len(images), CHUNK):
        shares = (torch.from_numpy(images[start : start + CHUNK].copy()).double() + 0.5) / 256  # never 0 or 1
        plane = torch.einsum("cr,byxr->bcyx", to_directions, shares.logit())
        total += torch.fft.rfft2(plane, norm="ortho").abs().sum(dim=0)
    total[:, 0, 0] = 0
    return (total / len(images)).float()
