"""Captions from a captioner: the likeliest word at each step, or the best of a beam; all images of a batch at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aaca.data.scenegraph.batch import GraphBatch
from aaca.data.scenegraph.vocabulary import BOS, EOS
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.state import State
from aaca.runtime.errors import ConfigError


@dataclass(frozen=True)
class Captions:
    """One caption a graph.

    words: ids without BOS and EOS. log_probs `[B]`: Σ log p of the words, and of EOS where the caption reached it.
    attention: `[T, N]` for each, α of every step: one row a word, and one for EOS where the caption reached it.
    """

    words: list[list[int]]
    log_probs: Tensor
    attention: list[Tensor]

    @property
    def scores(self) -> Tensor:
        """`[B]`: log-probability a step, EOS's included; what a beam goes by."""
        steps = [len(attention) for attention in self.attention]
        return self.log_probs / torch.tensor(steps, device=self.log_probs.device)


@torch.no_grad()
def greedy(model: GraphCaptioner, batch: GraphBatch, length: int) -> Captions:
    """The likeliest word at each step, until EOS or `length` words (EOS counts as one).

    Ties go to the smaller id. Finished captions leave the batch. The model is to be in evaluation mode. Raises
    `ConfigError` for a length below 1.
    """
    _check(length, width=1)
    state = model.start(model.encode(batch))
    rows = torch.arange(len(batch.mask), device=batch.mask.device)
    last = torch.full_like(rows, BOS)
    words = torch.full((len(rows), length), EOS, device=rows.device)
    attention = state.attention.new_zeros(len(rows), length, batch.mask.shape[1])
    total, steps = state.attention.new_zeros(len(rows)), torch.zeros_like(rows)
    for step in range(length):
        logits, state = model.step(last, state)
        last = logits.argmax(1)
        total[rows] += _log_probs(logits).gather(1, last[:, None])[:, 0]
        words[rows, step], attention[rows, step], steps[rows] = last, state.attention, step + 1
        going = last != EOS
        if not going.any():
            break
        if not going.all():
            rows, last, state = rows[going], last[going], state.rows(going)
    return _captions(words, total, attention, steps)


@torch.no_grad()
def beam(model: GraphCaptioner, batch: GraphBatch, width: int, length: int) -> Captions:
    """The caption of the highest mean log-probability a step among those that a beam of `width` finishes.

    Each step keeps the likeliest continuations of those still going: `width`, less one for each caption that is
    finished. A caption is finished by EOS, which may come first, or by `length` words (EOS counts as one); its score is
    Σ log p / number of words, EOS included. Ties go to the caption that finished earlier, then to the better beam
    place, then to the smaller word. The model is to be in evaluation mode. Raises `ConfigError` for a width or a length
    below 1.
    """
    _check(length, width)
    b, n = batch.mask.shape
    search = _Search(model.start(model.encode(batch)), b, n, width, length)
    for step in range(length):
        logits, state = model.step(search.last.flatten(), search.state)
        search.extend(_log_probs(logits), state, step)
        search.drop_finished()
        if not len(search.images):
            break
    return _captions(search.best_words, search.best_total, search.best_attention, search.best_steps)


class _Search:
    # Beams of the images that still go, [I, W, …], the likeliest first; dead places have a total of -inf.
    # Of all images: the best finished caption so far.

    def __init__(self, state: State, images: int, nodes: int, width: int, length: int) -> None:
        at = torch.arange(images, device=state.attention.device)
        self.width, self.length, self.images = width, length, at
        self.state = state.rows(at.repeat_interleave(width))
        self.total = state.attention.new_full((images, width), -torch.inf)
        self.total[:, 0] = 0  # all places begin alike: one is enough
        self.last = at.new_full((images, width), BOS)
        self.words = at.new_full((images, width, length), EOS)
        self.attention = state.attention.new_zeros(images, width, length, nodes)
        self.left = at.new_full((images,), width)
        self.best_score, self.best_total = self.total.new_full((images,), -torch.inf), self.total.new_zeros(images)
        self.best_words, self.best_steps = self.words[:, 0].clone(), torch.zeros_like(at)
        self.best_attention = self.attention[:, 0].clone()

    def extend(self, log_probs: Tensor, state: State, step: int) -> None:
        i, width, vocabulary = len(self.images), self.width, log_probs.shape[1]
        joint = (self.total[:, :, None] + log_probs.view(i, width, vocabulary)).flatten(1)
        self.total, place = _top(joint, width)
        parent, self.last = place // vocabulary, place % vocabulary
        alive = torch.arange(width, device=place.device) < self.left[:, None]
        self.total = self.total.masked_fill(~alive, -torch.inf)
        rows = torch.arange(i, device=place.device)[:, None]
        self.state = state.rows((rows * width + parent).flatten())
        self.words, self.attention = self.words[rows, parent], self.attention[rows, parent]
        self.words[:, :, step] = self.last
        self.attention[:, :, step] = self.state.attention.view(*place.shape, -1)
        self._finish(step)

    def _finish(self, step: int) -> None:
        done = self.total.isfinite()
        if step + 1 < self.length:
            done &= self.last == EOS
        score, place = (self.total / (step + 1)).masked_fill(~done, -torch.inf).max(1)
        better = score > self.best_score[self.images]
        goal, rows, place = self.images[better], torch.nonzero(better)[:, 0], place[better]
        self.best_score[goal], self.best_total[goal] = score[better], self.total[rows, place]
        self.best_words[goal], self.best_attention[goal] = self.words[rows, place], self.attention[rows, place]
        self.best_steps[goal] = step + 1
        self.left = self.left - done.sum(1)
        self.total = self.total.masked_fill(done, -torch.inf)

    def drop_finished(self) -> None:
        going = self.total.isfinite().any(1)
        if not going.all():
            self.images, self.left, self.total = self.images[going], self.left[going], self.total[going]
            self.last, self.words, self.attention = self.last[going], self.words[going], self.attention[going]
            self.state = self.state.rows(going.repeat_interleave(self.width))


def _top(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    # The k largest of each row in order, ties to the smaller place: torch.topk leaves open which of equals it takes.
    least = values.topk(k, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    room = k - above.sum(1, keepdim=True)
    place = torch.nonzero(above | (equal & (equal.cumsum(1) <= room)))[:, 1].view(len(values), k)
    chosen, order = values.gather(1, place).sort(dim=1, descending=True, stable=True)
    return chosen, place.gather(1, order)


def _log_probs(logits: Tensor) -> Tensor:
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return wide.log_softmax(1)


def _captions(words: Tensor, total: Tensor, attention: Tensor, steps: Tensor) -> Captions:
    kept = [row[:count] for row, count in zip(words.tolist(), steps.tolist(), strict=True)]
    spoken = [row[:-1] if row[-1] == EOS else row for row in kept]
    return Captions(spoken, total, [rows[:count] for rows, count in zip(attention, steps.tolist(), strict=True)])


def _check(length: int, width: int) -> None:
    for name, value in (("length", length), ("width", width)):
        if value < 1:
            raise ConfigError(f"decode.{name}: {value}; expected 1 or more")
