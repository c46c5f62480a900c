"""One word after another from a graph's nodes: attention by content and by flow, and nodes that remember what was said.

ASG2Caption (CVPR 2020). Whatever does not depend on the words before is computed once for all steps; what is
multiplied with the same vector is one matrix product.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaca.models.captioner.spec import CaptionerSpec
from aaca.models.captioner.state import Memory, Products, State

HOPS = 3
"""Stay, one step along the flow graph, two steps."""


class Perceptron(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[…, outputs]` of inputs `[…, inputs]`."""
        return self.last(F.relu(self.first(inputs)))


def _lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    entrance, forget, candidate, exit_ = gates.chunk(4, dim=1)
    cell = forget.sigmoid() * cell + entrance.sigmoid() * candidate.tanh()
    return exit_.sigmoid() * cell.tanh(), cell


def _full(tensor: Tensor) -> Tensor:
    # autocast's eight bits of fraction would let attention drift from a sum of 1
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class GraphDecoder(nn.Module):
    """The recurrence of ASG2Caption without words: gates of a word in, output of the language LSTM out.

    `nn.LSTMCell` and `nn.Linear` modules hold the weights; the products of them are computed here.
    """

    def __init__(self, spec: CaptionerSpec) -> None:
        super().__init__()
        hidden = spec.hidden
        self.attention_lstm = nn.LSTMCell(3 * hidden, hidden)  # language output, global vector, word
        self.language_lstm = nn.LSTMCell(2 * hidden, hidden)  # attention output, attended node
        for cell in (self.attention_lstm, self.language_lstm):
            _init_lstm(cell)
        self.key = nn.Linear(hidden, spec.attention, bias=False)
        self.query = nn.Linear(hidden, spec.attention)
        self.score = nn.Linear(spec.attention, 1, bias=False)
        self.flow = Perceptron(2 * hidden, hidden, 1 + HOPS) if spec.flow else None
        self.rewrite = Perceptron(2 * hidden, hidden, 2 * hidden) if spec.memory else None
        self.sentinel = Perceptron(hidden, hidden, 1) if spec.memory else None

    def start(self, memory: Memory) -> State:
        """The state before the first word."""
        hidden = self.key.in_features
        b, n = memory.mask.shape
        attention = torch.zeros_like(memory.nodes[..., 0])
        attention[:, 0] = memory.mask[:, 0].to(attention.dtype)  # a graph without nodes attends to nothing
        zero = _full(torch.zeros_like(memory.whole))
        words = self.attention_lstm
        bias = words.bias_ih + words.bias_hh
        products = self._products()
        keys, inner = self._project(memory.nodes, products)
        return State(
            products=products,
            mask=memory.mask,
            whole=F.linear(memory.whole, words.weight_ih[:, hidden : 2 * hidden], bias),
            hops=self._hops(memory.flow) if self.flow is not None else memory.flow.new_empty(b, 0, n),
            nodes=memory.nodes,
            keys=keys,
            inner=inner,
            attention=_full(attention),
            attention_hidden=zero,
            attention_cell=zero,
            language_hidden=zero,
            language_cell=zero,
        )

    def word_gates(self, embedded: Tensor) -> Tensor:
        """The words' part of the attention LSTM's gates: `[..., 4H]` of embedded words `[..., H]`."""
        return F.linear(embedded, self.attention_lstm.weight_ih[:, 2 * self.key.in_features :])

    def step(self, word_gates: Tensor, state: State) -> State:
        """One word `[B, 4H]`: the state after it. What is said next is read from its `language_hidden`."""
        return self.remember(self.attend(word_gates, state))

    def attend(self, word_gates: Tensor, state: State) -> State:
        """The first half of a step: both LSTMs and the attention between them; nodes stay as they were."""
        weights = state.products
        before = torch.cat([state.language_hidden, state.attention_hidden], dim=1)
        gates = torch.addmm(state.whole + word_gates, before, weights.attention_lstm)
        hidden, cell = _lstm(gates, state.attention_cell)
        attention, beta, choice = self._attention(hidden, state)
        node = _attended(attention, state.nodes)
        inputs = torch.cat([hidden, node, state.language_hidden], dim=1)
        gates = torch.addmm(weights.language_bias, inputs, weights.language_lstm)
        language_hidden, language_cell = _lstm(gates, state.language_cell)
        return replace(
            state,
            attention=attention,
            beta=beta,
            choice=choice,
            attention_hidden=hidden,
            attention_cell=cell,
            language_hidden=language_hidden,
            language_cell=language_cell,
        )

    def remember(self, state: State) -> State:
        """The second half: nodes rewritten where they were attended to, and their new keys; without memory nothing.

        x_i ← x_i ⊙ (1 − k_i e_i) + k_i a_i with k = u α, e = σ(ê) and a linear.
        """
        if self.rewrite is None or self.sentinel is None:
            return state
        first, last = self.rewrite.first, self.rewrite.last
        said = state.language_hidden
        sentinel = _full(self.sentinel(said)[:, 0]).sigmoid()
        inner = F.relu(state.inner + F.linear(said, state.products.said, first.bias)[:, None])
        erase, add = last(inner).chunk(2, dim=2)
        share = (sentinel[:, None] * state.attention)[..., None]
        nodes = state.nodes + share * (add - state.nodes * erase.sigmoid())
        keys, inner = self._project(nodes, state.products)
        return replace(state, nodes=nodes, keys=keys, inner=inner, sentinel=sentinel)

    def _products(self) -> Products:
        hidden = self.key.in_features
        words, language = self.attention_lstm, self.language_lstm
        said, held = self.key.weight.new_empty(2, 0, hidden)
        if self.rewrite is not None:
            said, held = torch.split(self.rewrite.first.weight, hidden, dim=1)
        return Products(
            attention_lstm=torch.cat([words.weight_ih[:, :hidden], words.weight_hh], dim=1).T,
            language_lstm=torch.cat([language.weight_ih, language.weight_hh], dim=1).T,
            language_bias=language.bias_ih + language.bias_hh,
            nodes=torch.cat([self.key.weight, held]).T,
            said=said,
        )

    def _project(self, nodes: Tensor, products: Products) -> tuple[Tensor, Tensor]:
        width = self.key.out_features
        keys, inner = torch.split(nodes @ products.nodes, [width, products.nodes.shape[1] - width], dim=2)
        return keys, inner

    def _attention(self, hidden: Tensor, state: State) -> tuple[Tensor, Tensor | None, Tensor | None]:
        content = self._content(hidden, state)
        if self.flow is None:
            return content, None, None
        held = _attended(state.attention, state.nodes)
        decided = _full(self.flow(torch.cat([hidden, held], dim=1)))
        beta, choice = decided[:, 0].sigmoid(), decided[:, 1:].softmax(1)
        moved = (state.hops * state.attention[:, None]).sum(2).view(len(hidden), 2, -1)
        flowing = choice[:, :1] * state.attention + (choice[:, 1:, None] * moved).sum(1)
        return beta[:, None] * content + (1 - beta[:, None]) * flowing, beta, choice

    def _content(self, hidden: Tensor, state: State) -> Tensor:
        scores = _full(self.score((state.keys + self.query(hidden)[:, None]).tanh())[..., 0])
        scores = scores.masked_fill(~state.mask, torch.finfo(scores.dtype).min)
        return scores.softmax(1) * state.mask  # the product: a graph without nodes has no attention, not 1/N each

    @staticmethod
    def _hops(flow: Tensor) -> Tensor:
        with torch.autocast(flow.device.type, enabled=False):
            return torch.cat([flow, flow @ flow], dim=1)


def _attended(attention: Tensor, nodes: Tensor) -> Tensor:
    return (attention[:, None].to(nodes.dtype) @ nodes)[:, 0]


def _init_lstm(cell: nn.LSTMCell) -> None:
    nn.init.orthogonal_(cell.weight_ih)
    nn.init.orthogonal_(cell.weight_hh)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
    with torch.no_grad():
        cell.bias_ih[cell.hidden_size : 2 * cell.hidden_size] = 1  # gates: input, forget, candidate, output
