"""What a captioner holds between two words: the encoded graph, the decoder's state."""

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """What the encoder hands over: nodes `[B, N, H]`, mask `[B, N]`, global vectors `[B, H]`, flow `[B, N, N]`."""

    nodes: Tensor
    mask: Tensor
    whole: Tensor
    flow: Tensor


@dataclass(frozen=True)
class Products:
    """The decoder's weights, put side by side where they meet the same vector, and transposed."""

    attention_lstm: Tensor
    """`[2H, 4H]` of (language LSTM's output, own output)."""
    language_lstm: Tensor
    """`[3H, 4H]` of (attention LSTM's output, attended node, own output)."""
    language_bias: Tensor
    """`[4H]`: both of its biases."""
    nodes: Tensor
    """`[H, A]`, or `[H, A + H]` with a memory: of a node to its key and to the first layer of its rewriting."""
    said: Tensor
    """`[H, H]`: of the language LSTM's output to that layer; no rows in variants without memory."""


@dataclass(frozen=True)
class State:
    """Everything a step needs, one row a caption: fixed parts of the graph, then what the last step left.

    `beta`, `choice` and `sentinel` are of the last step, for display: share of content attention `[B]`, shares of
    staying, one hop and two hops `[B, 3]`, the visual sentinel gate u `[B]`; None at the start and in variants without.
    """

    products: Products
    mask: Tensor
    """`[B, N]` bool."""
    whole: Tensor
    """`[B, 4H]`: the global vector's part of the attention LSTM's gates, biases included."""
    hops: Tensor
    """`[B, 2N, N]`: the flow graph and its square; no rows in variants without flow."""
    nodes: Tensor
    """`[B, N, H]`: the memory."""
    keys: Tensor
    """`[B, N, A]`: keys of the memory as it is now."""
    inner: Tensor
    """`[B, N, H]`: the memory's part of the first layer of its rewriting; `[B, N, 0]` in variants without memory."""
    attention: Tensor
    """`[B, N]`: α of the last step; at the start 1 on the first node (ASG2Caption: the list's order is a control)."""
    attention_hidden: Tensor
    attention_cell: Tensor
    language_hidden: Tensor
    language_cell: Tensor
    """`[B, H]` each."""
    beta: Tensor | None = None
    choice: Tensor | None = None
    sentinel: Tensor | None = None

    def rows(self, index: slice | Tensor) -> "State":
        """The state of some captions, in that order; a caption may come more than once."""
        values = [(field.name, getattr(self, field.name)) for field in fields(self)]
        taken: dict[str, Any] = {name: value[index] for name, value in values if isinstance(value, Tensor)}
        return replace(self, **taken)
