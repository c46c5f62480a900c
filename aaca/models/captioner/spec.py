"""What a captioner is: sizes and switches; the six variants of ASG2Caption as switches."""

from dataclasses import dataclass
from typing import Literal

from aaca.runtime.errors import ConfigError, nearest

RELATION_INITS = ("per_relation", "upstream")
LEAST_WORDS = 3
"""BOS, EOS and UNK."""

VARIANTS: dict[str, dict[str, bool]] = {
    "node": {"role": False, "edges": False, "flow": False, "memory": False},
    "node_role": {"role": True, "edges": False, "flow": False, "memory": False},
    "rgcn": {"role": True, "edges": True, "flow": False, "memory": False},
    "rgcn_flow": {"role": True, "edges": True, "flow": True, "memory": False},
    "rgcn_memory": {"role": True, "edges": True, "flow": False, "memory": True},
    "rgcn_flow_memory": {"role": True, "edges": True, "flow": True, "memory": True},
}
"""Switches of `CaptionerSpec` by name. The last one is ASG2Caption's full model and the only one of EGA."""


@dataclass(frozen=True, kw_only=True)
class CaptionerSpec:
    """Sizes and switches of a `GraphCaptioner`; the defaults are EGA's and ASG2Caption's on COCO.

    Args:
        words: size V of the vocabulary, with BOS, EOS and UNK (10,942 on COCO).
        features: width F of a node's feature.
        global_features: width G of the image's own feature.
        hidden: width of nodes, words and both LSTMs.
        attention: width of the content attention.
        layers: graph convolutions, with `edges`.
        role: whether node features are multiplied with an embedding of type and attribute order.
        edges: a relational graph convolution over the edges; without, one linear layer for each node by itself.
        flow: attention that may also move along the flow graph.
        memory: nodes that are rewritten after each word.
        embed_first: a linear layer with ReLU before the graph convolutions (COCO yes, Visual Genome no).
        dropout: share of the language LSTM's output that is dropped before the word table.
        relation_init: `per_relation`: Xavier for each relation's matrix; `upstream`: the released code's, called once
            on all of them, whose bound is 16 times smaller at width 512.

    Raises `ConfigError` naming `captioner.<argument>`.

    """

    words: int
    features: int = 2048
    global_features: int = 2048
    hidden: int = 512
    attention: int = 512
    layers: int = 2
    role: bool = True
    edges: bool = True
    flow: bool = True
    memory: bool = True
    embed_first: bool = True
    dropout: float = 0.5
    relation_init: Literal["per_relation", "upstream"] = "per_relation"

    def __post_init__(self) -> None:
        if self.words < LEAST_WORDS:
            raise ConfigError(f"captioner.words: {self.words}; expected {LEAST_WORDS} or more (BOS, EOS, UNK, …)")
        for name in ("features", "global_features", "hidden", "attention", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"captioner.{name}: {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"captioner.dropout: {self.dropout}; expected 0 or more and below 1")
        if self.relation_init not in RELATION_INITS:
            hint = nearest(self.relation_init, RELATION_INITS)
            raise ConfigError(f"captioner.relation_init: {self.relation_init!r}; {hint}")
