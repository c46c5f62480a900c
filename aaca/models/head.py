"""A classifier's last layer on cached features: what neurons are worth to classes, without the network before them."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier
from aaca.runtime.errors import AacaError, DataError

TOLERANCE = 2e-2
"""How far a head's logits may be from the stored ones, as a share of the largest: bfloat16 keeps eight bits of each."""


@dataclass(frozen=True)
class Head:
    """A linear head: weight `[K, D]`, bias `[K]`, float32 on the CPU. A neuron is one of its D inputs."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, classifier: Classifier) -> "Head":
        """A copy of the classifier's. Raises `AacaError` where it is not one linear layer."""
        head = _linear(classifier)
        bias = torch.zeros(len(head.weight)) if head.bias is None else head.bias.detach().float().cpu().clone()
        return cls(head.weight.detach().float().cpu().clone(), bias)

    def put(self, classifier: Classifier) -> None:
        """Overwrite the classifier's head. Raises `AacaError` where it has no bias and this one is not zero."""
        head = _linear(classifier)
        if head.bias is None and bool(self.bias.any()):
            raise AacaError(f"model: {type(classifier.backbone).__name__} has a head without bias, the new one has one")
        with torch.no_grad():
            head.weight.copy_(self.weight)
            if head.bias is not None:
                head.bias.copy_(self.bias)

    def logits(self, features: Tensor) -> Tensor:
        """`[N, K]` of features `[N, D]`."""
        return features @ self.weight.T + self.bias

    @property
    def neurons(self) -> int:
        """D."""
        return int(self.weight.shape[1])

    def importance(self, mean: Tensor, label: int) -> Tensor:
        """How much each neuron supports a class, `[D]`: p_c(f̄) / p_c(f̄ without it) at the mean feature f̄ `[D]`.

        Above 1 means support (NeuroInspect, feature_manipulation). The logits without neuron j are z − f̄_j · W[:, j]:
        no feature is ever written to.
        """
        whole = self.logits(mean[None])[0].double()
        without = whole[:, None] - mean.double() * self.weight.double()
        return (whole.log_softmax(0)[label] - without.log_softmax(0)[label]).exp()


def _linear(classifier: Classifier) -> nn.Linear:
    head = classifier.head
    if not isinstance(head, nn.Linear):
        raise AacaError(f"model: neurons are inputs of a linear head, and this model has a {type(head).__name__}")
    return head


@dataclass(frozen=True)
class FeatureBank:
    """What a frozen backbone makes of a table, and the head on top: all that inspection and editing need.

    features `[N, D]` float32, labels `[N]` int64, ids `[N]`, groups `[N]` (class × confounder; "" where unknown).
    """

    head: Head
    features: Tensor
    labels: Tensor
    ids: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of(cls, scored: Scored, table: ImageTable, head: Head) -> "FeatureBank":
        """Of the stored features of `table`. Raises `DataError` where `head` does not make their logits."""
        features, logits = torch.from_numpy(scored.embeddings), torch.from_numpy(scored.logits)
        if not np.array_equal(scored.ids, table.ids):
            raise DataError("feature bank: the features are of other images than the table's")
        if features.shape[1] != head.neurons:
            raise DataError(f"feature bank: {features.shape[1]} features an image, the head takes {head.neurons}")
        apart = float((head.logits(features) - logits).abs().max()) if len(features) else 0.0
        if apart > TOLERANCE * max(1.0, float(logits.abs().max()) if len(logits) else 1.0):
            raise DataError(f"feature bank: the head's logits are {apart:.2g} from the stored ones; of another model?")
        groups = table.frame["group"].to_numpy(dtype=object)
        return cls(head, features, torch.from_numpy(scored.labels.copy()), scored.ids, groups, table.classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def logits(self) -> Tensor:
        """`[N, K]`."""
        return self.head.logits(self.features)

    @cached_property
    def predictions(self) -> Tensor:
        """`[N]`."""
        return self.logits.argmax(dim=1)

    def mistakes(self, label: int) -> Tensor:
        """Rows `[M]` of images of the class that are taken for another one."""
        return torch.nonzero((self.labels == label) & (self.predictions != label)).flatten()

    def with_head(self, head: Head) -> "FeatureBank":
        """The same features under another head."""
        return replace(self, head=head)

    def take(self, rows: Tensor) -> "FeatureBank":
        """Some of the images."""
        keep = rows.numpy()
        return replace(
            self,
            features=self.features[rows],
            labels=self.labels[rows],
            ids=self.ids[keep],
            groups=self.groups[keep],
        )
