"""The whole captioner: scene graphs in, logits of words out; its loss; the model as a folder."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aaca.data.scenegraph.batch import GraphBatch
from aaca.models.captioner.decoder import GraphDecoder
from aaca.models.captioner.encoder import GraphEncoder
from aaca.models.captioner.spec import CaptionerSpec
from aaca.models.captioner.state import Memory, State
from aaca.runtime.config import parse
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import atomic_path, file_sha256, read_json, write_json
from aaca.runtime.seeding import purpose_seed

MODEL, PAGE = "model.safetensors", "captioner.json"


IGNORED = -100
"""What `cross_entropy` leaves out of its mean."""


@dataclass(frozen=True)
class Forced:
    """What teacher forcing gives, one row a target of the batch, M in all; what is beyond a caption's end has no row.

    Rows go step by step, within a step from the longest caption to the shortest.
    """

    logits: Tensor
    """`[M, V]`"""
    attention: Tensor
    """`[M, N]`: α of the step."""
    captions: Tensor
    """`[M]`: the target's caption, a row of the batch."""
    steps: Tensor
    """`[M]`: its step, from 0: the target is `words[caption, 1 + step]`."""
    targets: Tensor
    """`[M]`: its word, or -100 where `word_mask` has a hole."""
    shape: tuple[int, int]
    """B and T - 1."""

    def loss(self) -> Tensor:
        """Mean cross-entropy over all targets that count: what `caption_loss` gives, without the padded logits."""
        return F.cross_entropy(self.logits, self.targets, ignore_index=IGNORED)

    def padded(self, values: Tensor) -> Tensor:
        """`[B, T-1, …]` of values `[M, …]` of the rows; 0 beyond a caption's end."""
        empty = values.new_zeros(*self.shape, *values.shape[1:])
        return empty.index_put((self.captions, self.steps), values)


class GraphCaptioner(nn.Module):
    """ASG2Caption's captioner (CVPR 2020; EGA keeps its full variant), with the variant's switches in `spec`.

    Weights are drawn from `seed` alone. A graph without nodes is captioned from the image's own feature: its attention
    and attended node are 0.
    """

    def __init__(self, spec: CaptionerSpec, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(purpose_seed(seed, "captioner"))
            self.encoder = GraphEncoder(spec)
            self.decoder = GraphDecoder(spec)
            self.words = nn.Embedding(spec.words, spec.hidden)
            nn.init.uniform_(self.words.weight, -(spec.hidden**-0.5), spec.hidden**-0.5)
        self.dropout = nn.Dropout(spec.dropout)

    def encode(self, batch: GraphBatch) -> Memory:
        """Nodes and global vectors of the graphs. Raises `DataError` where features are not as wide as `spec` says."""
        given = (batch.features.shape[2], batch.globals.shape[1])
        expected = (self.spec.features, self.spec.global_features)
        if given != expected:
            raise DataError(f"graphs: node and image features of width {given}; the captioner takes {expected}")
        nodes, whole = self.encoder(batch)
        return Memory(nodes, batch.mask, whole, batch.flow)

    def start(self, memory: Memory) -> State:
        """The state before the first word (BOS)."""
        state: State = self.decoder.start(memory)
        return state

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: last words `[B]` in, logits `[B, V]` of the next and the state after it."""
        state = self.decoder.step(self.decoder.word_gates(self.words(words)), state)
        return self._logits(state.language_hidden), state

    def forward(self, batch: GraphBatch) -> Tensor:
        """Logits `[B, T-1, V]` of `words[:, 1:]`, each given the true words before it; 0 after the last that counts."""
        forced = self.forced(batch)
        return forced.padded(forced.logits)

    def forced(self, batch: GraphBatch) -> Forced:
        """Teacher forcing: logits and attention of all targets, and the loss.

        Captions are sorted by length, so that those still going are the first rows and no step computes any other.
        """
        b, steps = batch.word_mask.shape
        at = torch.arange(steps, device=batch.words.device)
        lengths = (batch.word_mask * (at + 1)).amax(1)
        order = lengths.argsort(descending=True, stable=True)
        going = (at < lengths[order, None]).T  # [T-1, B]: a prefix of every row
        counts = [count for count in going.sum(1).tolist() if count]
        gates = torch.split(self.decoder.word_gates(self.words(batch.words[order, :-1].T[going])), counts)
        state = self.start(self.encode(batch)).rows(order)
        said, attention = [], []
        for step, count in enumerate(counts):
            if step:
                state = self.decoder.remember(state if count == counts[step - 1] else state.rows(slice(count)))
            elif count < b:
                state = state.rows(slice(count))
            state = self.decoder.attend(gates[step], state)
            said.append(state.language_hidden)
            attention.append(state.attention)
        captions, taken = order.expand(steps, b)[going], at[:, None].expand(steps, b)[going]
        targets = batch.words[captions, taken + 1].masked_fill(~batch.word_mask[captions, taken], IGNORED)
        logits = self._logits(torch.cat(said))
        return Forced(logits, torch.cat(attention), captions, taken, targets, (b, steps))

    def _logits(self, hidden: Tensor) -> Tensor:
        return F.linear(self.dropout(hidden), self.words.weight)


def caption_loss(logits: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the targets that count: logits `[B, T-1, V]`, words `[B, T]` (BOS first), mask `[B, T-1]`.

    The mean is over all of the batch's targets, not over captions.
    """
    return F.cross_entropy(logits[mask], words[:, 1:][mask])


def save(captioner: GraphCaptioner, folder: Path) -> None:
    """Write `model.safetensors` and then `captioner.json`: the spec and the weights' SHA-256."""
    path = folder / MODEL
    tensors = {name: value.detach().cpu().contiguous() for name, value in captioner.state_dict().items()}
    (folder / PAGE).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)
    write_json(folder / PAGE, {"spec": asdict(captioner.spec), "sha256": file_sha256(path)})


def load(folder: Path) -> GraphCaptioner:
    """What `save` wrote, on the CPU. Raises `DataError` for any other folder, spec, tensor or byte."""
    page, path = folder / PAGE, folder / MODEL
    try:
        known = read_json(page)
        spec, digest = parse(known["spec"], CaptionerSpec, "captioner"), known["sha256"]
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{page}: not a captioner's page ({type(error).__name__}: {error})") from error
    if not path.is_file() or file_sha256(path) != digest:
        raise DataError(f"{path}: not the file that {PAGE} is of; expected SHA-256 {digest}")
    captioner = GraphCaptioner(spec)
    try:
        captioner.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise DataError(f"{path}: not this captioner's tensors ({str(error).splitlines()[0]})") from error
    return captioner
