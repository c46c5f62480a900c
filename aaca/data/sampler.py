"""Which images come when: a pure function of (seed, epoch, rank), so any run can be repeated exactly."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Epoch e takes `epoch_size` images from an endless row of shuffles of all n, shared out over the ranks.

    With `epoch_size == n` every epoch is one shuffle; with more, it runs on into the next shuffle, so no image is ever
    seen more than once oftener than another. Each rank takes `per_rank` of its share (what its whole batches hold).

    What it yields is the *draw*: number of the shuffle · n + row. It names one showing of one image, so that
    augmentation can be seeded by it and does not depend on workers, ranks or batches.
    """

    def __init__(self, n: int, per_rank: int, epoch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.n, self.per_rank, self.epoch_size = n, per_rank, epoch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0
        self.consumed = (0, 0)

    def resume(self, epoch: int, consumed: int) -> None:
        """Begin in `epoch`, after the first `consumed` images of this rank's share of it."""
        self.epoch, self.consumed = epoch, (epoch, consumed)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws (Lightning calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_rank

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.epoch_size
        positions = np.arange(first, first + self.epoch_size)
        drawn = np.empty(self.epoch_size, dtype=np.int64)
        for shuffle in np.unique(positions // self.n):
            order = np.random.default_rng((self.seed, int(shuffle))).permutation(self.n)
            here = positions // self.n == shuffle
            drawn[here] = shuffle * self.n + order[positions[here] % self.n]
        epoch, consumed = self.consumed
        skip = consumed if epoch == self.epoch else 0
        return iter(drawn[self.rank :: self.world][skip : self.per_rank].tolist())


class ShardSampler(Sampler[int]):
    """All rows in order, shared out over the ranks; `pad` repeats the first rows so that all ranks are equally long.

    The first `skip` rows of this rank's share are left out.
    """

    def __init__(self, n: int, rank: int = 0, world: int = 1, pad: bool = False, skip: int = 0) -> None:
        total = -(-n // world) * world if pad else n
        self.rows = (np.arange(total) % max(n, 1))[rank::world][skip:]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.tolist())
