"""Numbers that an optimiser moves, and the images they stand for: `fourier`, `pixel`, `maco`. Samples never mix."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from aaca.runtime.errors import ConfigError, DataError

Kind = Literal["fourier", "pixel", "maco"]
SPACING = math.sqrt(0.5)
"""Between two pixels, in the unit in which frequencies are counted (NeuroInspect, utils/params)."""
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Rows red, green, blue; columns: directions of colour that are independent in natural images (lucid, measured)."""


def colour_matrix(device: torch.device | str = "cpu") -> Tensor:
    """`[3, 3]` from independent directions to RGB, its longest column of length 1."""
    matrix = torch.tensor(COLOURS, dtype=torch.float32, device=device)
    return matrix / matrix.norm(dim=0).max()


def frequencies(size: int) -> Tensor:
    """|f| `[S, S//2+1]` float32 of the real Fourier transform of an S × S image."""
    down = torch.fft.fftfreq(size, SPACING, dtype=torch.float64)
    across = torch.fft.rfftfreq(size, SPACING, dtype=torch.float64)
    return torch.hypot(down[:, None], across[None]).float()


class ImageParameters(ABC):
    """One way to write images down. Everything is float32, whatever the precision of the networks that look at them."""

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.size, self.device = size, torch.device(device)

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Leaf parameters `[B, …]` of images to start from; those of sample i are drawn from `seeds[i]` alone."""
        drawn = [self.draw(torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(self.device).requires_grad_()

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Tensor:
        """The parameters of one image, on the CPU."""

    @abstractmethod
    def to_images(self, parameters: Tensor) -> Tensor:
        """RGB images `[B, 3, S, S]` in (0, 1)."""


class Pixel(ImageParameters):
    """A number for every pixel and channel, `[B, 3, S, S]`, through a sigmoid."""

    def __init__(self, size: int, std: float, device: torch.device | str = "cpu") -> None:
        super().__init__(size, device)
        self.std = std

    def draw(self, generator: torch.Generator) -> Tensor:
        """Normal with deviation `std`."""
        return self.std * torch.randn(3, self.size, self.size, generator=generator, dtype=torch.float32)

    def to_images(self, parameters: Tensor) -> Tensor:
        """RGB images `[B, 3, S, S]` in (0, 1)."""
        return parameters.sigmoid()


class Fourier(ImageParameters):
    """The spectrum as real and imaginary parts `[B, 3, S, S//2+1, 2]`, low frequencies first in weight (NeuroInspect).

    Coefficients are multiplied by 1 / max(|f|^(2 · decay), 1 / (S · d)), d the spacing of pixels.
    """

    def __init__(self, size: int, std: float, decay: float, device: torch.device | str = "cpu") -> None:
        super().__init__(size, device)
        self.std, self.colours = std, colour_matrix(device)
        floor = 1 / (size * SPACING)
        self.scale = (1 / frequencies(size).pow(2 * decay).clamp(min=floor))[..., None].to(device)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Normal with deviation `std`."""
        shape = (3, self.size, self.size // 2 + 1, 2)
        return self.std * torch.randn(shape, generator=generator, dtype=torch.float32)

    def to_images(self, parameters: Tensor) -> Tensor:
        """RGB images `[B, 3, S, S]` in (0, 1)."""
        spectrum = torch.view_as_complex(parameters * self.scale)
        return rgb(torch.fft.irfft2(spectrum, s=(self.size, self.size), norm="ortho"), self.colours)


class Maco(ImageParameters):
    """Phases `[B, 3, S, S//2+1]` only; the magnitude is that of natural images (MACO, Fel et al. 2023).

    `spectrum` `[3, S, S//2+1]` is what `aaca.concepts.illusion.spectrum.mean_spectrum` measures.
    """

    def __init__(self, size: int, spectrum: Tensor, device: torch.device | str = "cpu") -> None:
        super().__init__(size, device)
        wanted = (3, size, size // 2 + 1)
        if tuple(spectrum.shape) != wanted or not bool(spectrum.isfinite().all()) or bool((spectrum < 0).any()):
            raise DataError(
                f"spectrum: shape {tuple(spectrum.shape)}; expected {wanted}, finite and not negative, for {size} px"
            )
        self.spectrum, self.colours = spectrum.float().to(device), colour_matrix(device)
        self.opposite = (-torch.arange(size, device=device)) % size

    def draw(self, generator: torch.Generator) -> Tensor:
        """Uniform in (−π, π)."""
        shape = (3, self.size, self.size // 2 + 1)
        return math.pi * (2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1)

    def to_images(self, parameters: Tensor) -> Tensor:
        """RGB images `[B, 3, S, S]` in (0, 1)."""
        return rgb(self.plane(parameters), self.colours)

    def plane(self, parameters: Tensor) -> Tensor:
        """What the sigmoid and the colours are applied to, `[B, 3, S, S]`; its magnitude is `spectrum`."""
        spectrum = torch.polar(self.spectrum.expand_as(parameters), self.phase(parameters))
        return torch.fft.irfft2(spectrum, s=(self.size, self.size), norm="ortho")

    def phase(self, parameters: Tensor) -> Tensor:
        """Phases that a real image can have: opposite ones in columns that hold both a frequency and its negative.

        Without this the inverse transform would average the two and lose some of the magnitude.
        """
        inner = parameters[..., 1 : (self.size + 1) // 2]
        ends = [0] if self.size % 2 else [0, -1]
        edges = [(parameters[..., end] - parameters[..., self.opposite, end]) / 2 for end in ends]
        return torch.cat([edges[0][..., None], inner, *(edge[..., None] for edge in edges[1:])], dim=-1)


def rgb(plane: Tensor, colours: Tensor) -> Tensor:
    """Images in (0, 1) of values `[B, 3, S, S]` along independent directions of colour."""
    return torch.einsum("rc,bcyx->bryx", colours, plane).sigmoid()


def image_parameters(
    kind: Kind,
    size: int,
    std: float,
    decay: float,
    spectrum: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> ImageParameters:
    """The parameterisation by its name. Raises `ConfigError` for an unknown one, or maco without a spectrum."""
    if kind == "fourier":
        return Fourier(size, std, decay, device)
    if kind == "pixel":
        return Pixel(size, std, device)
    if kind != "maco":
        raise ConfigError(f"param: {kind!r}; expected fourier, pixel or maco")
    if spectrum is None:
        raise ConfigError("param: 'maco' fixes the magnitude to that of images; expected their mean spectrum")
    return Maco(size, spectrum, device)
