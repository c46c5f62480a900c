import torch

from aaca.data.planted_features import FeatureSplit
from aaca.models.head import FeatureBank, Head


def fit_head(split: FeatureSplit, classes: int, seed: int, epochs: int = 100) -> Head:
    """A linear head by plain cross-entropy (Adam 1e-3, 128 images a step)."""
    generator = torch.Generator().manual_seed(seed)
    features, labels = torch.from_numpy(split.features), torch.from_numpy(split.labels)
    size = features.shape[1]
    weight = ((torch.rand(classes, size, generator=generator) * 2 - 1) / size**0.5).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(128):
            optimizer.zero_grad()
            logits = features[rows] @ weight.T + bias
            torch.nn.functional.cross_entropy(logits, labels[rows]).backward()
            optimizer.step()
    return Head(weight.detach(), bias.detach())


def bank_of(split: FeatureSplit, head: Head, classes: tuple[str, ...]) -> FeatureBank:
    """The split under the head."""
    ids = torch.arange(len(split.labels)).numpy().astype(str).astype(object)
    features, labels = torch.from_numpy(split.features), torch.from_numpy(split.labels)
    return FeatureBank(head, features, labels, ids, split.groups, classes)


def class_accuracy(split: FeatureSplit, head: Head, classes: int) -> list[float]:
    """Percent of each class that the head gets right."""
    right = head.logits(torch.from_numpy(split.features)).argmax(1).numpy() == split.labels
    return [100 * float(right[split.labels == label].mean()) for label in range(classes)]
