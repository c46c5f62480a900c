"""`fit_mapping`: from a teacher's feature maps to a student's activations, by ridge or by a trained pair of kernels."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from aaca.concepts.mapping import Basis, Kind, Mapping, fit_ridge, held_out, pca, r_squared
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.training.curves import Curves
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)
KEY = "repair.mapping"
COMPONENTS = 64
"""Principal components of the teacher's channels (Concept Distillation, released code)."""


ROW = 50
"""Updates between two looks at the stopping images, and a row of the curve."""


@dataclass(frozen=True)
class Schedule:
    """Adam until the stopping images' error has not fallen by a thousandth for `patience` rows of 50 updates.

    The released code took 55 updates at 1e-4 in all, and left the mapping nearly as it was drawn.
    """

    lr: float = 3e-3
    batch_size: int = 32
    patience: int = 10
    rows: int = 100


@dataclass(frozen=True)
class Geometry:
    """Kernel and stride (height, width) of the encoder; it `grows` (transposed) where the student's map is larger."""

    grows: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]


def geometry(teacher: tuple[int, ...], student: tuple[int, ...]) -> Geometry:
    """The kernel pair between maps `(c, h, w)` and `(C, H, W)`, exact in both directions without padding.

    One rule: the stride is one less than the whole ratio of the sides (1 at least), so that windows overlap; the kernel
    is what is left. It gives the paper's (64, 3, 3) → (50, 8, 8) k6 s1, (64, 28, 28) → (512, 7, 7) k10 s3 and
    (64, 64, 48) → (1, 512, 384) k(71, 55) s7; of its two choices for 3 → 8 DecoyMNIST's (k4 s2) is not this one.
    """
    if len(student) != 3:
        raise ConfigError(
            f"{KEY}: conv, but the student's activation of an image has the shape {student}; expected a map of places "
            "(C, H, W); nearest valid: ridge"
        )
    pairs = list(zip(teacher[1:], student[1:], strict=True))
    grows = any(there > here for here, there in pairs)
    if grows and any(there < here for here, there in pairs):
        raise ConfigError(
            f"{KEY}: conv, but the student's map {student[1:]} is larger than the teacher's {teacher[1:]} on one side "
            "and smaller on the other; nearest valid: ridge"
        )
    sides = [(max(pair), min(pair)) for pair in pairs]
    strides = [max(1, large // small - 1) for large, small in sides]
    kernels = [large - (small - 1) * stride for (large, small), stride in zip(sides, strides, strict=True)]
    return Geometry(grows, (kernels[0], kernels[1]), (strides[0], strides[1]))


class Mapper(pl.LightningModule):
    """Encoder E (teacher → student) and decoder D (back): one kernel each with bias, nothing in between.

    Minimises MSE(t, D(E(t))) + MSE(E(t), a) over `(teacher's maps t [B, c, h, w], student's a [B, C, H, W])`. Logs
    `loss`, and of the validation images `stop_loss`, `stop_error` (its second term) and `stop_r2`.
    """

    def __init__(self, teacher: tuple[int, ...], student: tuple[int, ...], lr: float = 1e-3) -> None:
        super().__init__()
        self.geometry = geometry(teacher, student)
        kernel, stride = self.geometry.kernel, self.geometry.stride
        up, down = nn.ConvTranspose2d, nn.Conv2d
        first, second = (up, down) if self.geometry.grows else (down, up)
        self.encoder = first(teacher[0], student[0], kernel, stride)
        self.decoder = second(student[0], teacher[0], kernel, stride)
        self.lr = lr

    def losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(loss, E(t))."""
        maps, activations = batch
        encoded = self.encoder(maps)
        return F.mse_loss(self.decoder(encoded), maps) + F.mse_loss(encoded, activations), encoded

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One loss. Raises `AacaError` when it is not finite."""
        loss, _ = self.losses(batch)
        if not loss.detach().isfinite():
            raise AacaError(f"{KEY}: conv's loss is {float(loss)}; nearest valid: ridge")
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """All validation images in one batch."""
        loss, encoded = self.losses(batch)
        found, wanted = encoded.flatten(1), batch[1].flatten(1)
        self.log("stop_loss", loss, sync_dist=True, batch_size=len(wanted))
        self.log("stop_error", F.mse_loss(found, wanted), sync_dist=True, batch_size=len(wanted))
        self.log("stop_r2", r_squared(found, wanted), sync_dist=True, batch_size=len(wanted))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Converged(Callback):
    """Ends a fit when `stop_error` has not fallen by a thousandth for `patience` rows; puts its best weights back."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.waited = patience, float("inf"), 0
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at this row."""
        error = float(trainer.callback_metrics["stop_error"])
        self.waited = 0 if error < self.best * 0.999 else self.waited + 1
        if error < self.best:
            self.best = error
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}
        trainer.should_stop = trainer.should_stop or self.waited >= self.patience

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        pl_module.load_state_dict(self.weights)


def fit_mapping(
    kind: Kind,
    features: Tensor,
    student: Tensor,
    seed: int,
    trainer: TrainerSpec | None,
    folder: Path,
    components: int | None = COMPONENTS,
    schedule: Schedule | None = None,
) -> Mapping:
    """The mapping of `kind` from a teacher's maps `[N, c, h, w]` to a student's activations `[N, …]`, also in `folder`.

    Both on the CPU, of the same N concept images, which should be all there are: `components` principal components are
    fitted on them at once (None: the channels as they are). A fifth of the images is held out and gives R².

    All ranks call it with the same arguments. Ridge is solved on each. The kernels are trained by a loop of `trainer`
    in which every rank sees the same batches in the same order, so that the mean of the gradients is each of them and N
    devices do what one does: no images are divided, since there are a few hundred. All return what rank 0 wrote.

    Raises `ConfigError` where `conv` cannot be, `DataError` for R² < 0: a vector through it would mean nothing.
    """
    ranks = current()
    if len(features) != len(student) or features.ndim != 4 or not (_finite(features) and _finite(student)):
        raise DataError(
            f"{KEY}: feature maps {tuple(features.shape)} and activations {tuple(student.shape)}; "
            "expected [N, c, h, w] and [N, …], all finite"
        )
    basis = None if components is None else pca(features, components)
    if kind == "ridge":
        mapping = fit_ridge(features, student, seed, basis)
    else:
        if trainer is None:
            raise ConfigError(f"{KEY}: conv is trained, and no trainer is given; nearest valid: ridge")
        mapping = _trained(features, student, seed, trainer, folder, basis, schedule or Schedule())
    r2 = float(ranks.share(mapping.r2))
    if not r2 >= 0:
        other = "" if kind == "ridge" else f", or {KEY}=ridge"
        raise DataError(
            f"{KEY}: held-out R² is {r2:.2f}; expected 0 or more; more concept images, another teacher=…{other}"
        )
    if ranks.rank == 0:
        mapping.save(folder)
    ranks.exchange("mapping saved")
    log.info("  mapping  %s of %d concept images: held-out R² %.3f", kind, len(features), r2)
    return Mapping.load(folder)


def _finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _trained(
    features: Tensor,
    student: Tensor,
    seed: int,
    trainer: TrainerSpec,
    folder: Path,
    basis: Basis | None,
    schedule: Schedule,
) -> Mapping:
    rows, held = held_out(len(features), seed)
    cut = max(2, len(rows) // 8)
    stop, fit = rows[:cut], rows[cut:]  # R² is of images that neither trained nor stopped the training
    maps = features if basis is None else basis.project(features)
    shape = geometry(tuple(maps.shape[1:]), tuple(student.shape[1:]))
    # both sides in their own units: the two terms of the loss weigh alike, and one rate fits all teachers and layers
    scales = {
        "shift": maps[fit].mean(dim=(0, 2, 3))[:, None, None],
        "scale": maps[fit].std().clamp(min=1e-12),
        "student_shift": student[fit].mean(dim=(0, 2, 3))[:, None, None],
        "student_scale": student[fit].std().clamp(min=1e-12),
    }
    seen = (maps - scales["shift"]) / scales["scale"]
    wanted = (student - scales["student_shift"]) / scales["student_scale"]
    parts = [TensorDataset(seen[part], wanted[part]) for part in (fit, stop)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(purpose_seed(seed, "mapping"))
        encoder, updates = _encoder(parts[0], parts[1], trainer, folder, schedule)
    meta = {
        **{"grows": shape.grows, "kernel": shape.kernel, "stride": shape.stride, "updates": updates},
        **{"images": len(features), "held_out": len(held), "seed": seed},
    }
    mapping = Mapping("conv", basis, {**scales, **encoder}, tuple(student.shape[1:]), 0.0, meta)
    return replace(mapping, r2=r_squared(mapping.apply(features[held]), student[held].flatten(1)))


def _encoder(
    train: TensorDataset, stop: TensorDataset, trainer: TrainerSpec, folder: Path, schedule: Schedule
) -> tuple[dict[str, Tensor], int]:
    """(weight and bias of the encoder, updates it took)."""
    maps, activations = train.tensors
    mapper = Mapper(tuple(maps.shape[1:]), tuple(activations.shape[1:]), schedule.lr)
    converged = Converged(schedule.patience)
    loop = trainer.make(
        "mapping", max_epochs=schedule.rows, callbacks=[converged, Curves(folder / "log" / "metrics.csv")]
    )
    draws = RandomSampler(train, num_samples=ROW * schedule.batch_size)  # whole shuffles, one after the other
    batches = BatchSampler(draws, schedule.batch_size, drop_last=True)
    loop.fit(mapper, DataLoader(train, sampler=batches, batch_size=None), DataLoader(stop, len(stop)))
    return {name: value.float() for name, value in mapper.encoder.cpu().state_dict().items()}, loop.global_step
