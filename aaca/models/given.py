"""A classifier that is there already: its weights from a file of ours, or of timm's names with the head included."""

from pathlib import Path

from aaca.models.checkpoint import read_state
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.runtime.errors import AacaError, ConfigError

OURS = "backbone."


def check_given(file: str | None) -> None:
    """Raise `ConfigError` where a file is named that is not there."""
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"weights: no file {file}; expected a classifier's weights, or null to train one")


def load_given(source: ClassifierSource, n_classes: int, file: Path) -> Classifier:
    """The classifier of `source` with the weights of `file`; every one has to be there, the head's too.

    Raises `AacaError` naming the first key that is missing, too many, or of another shape.
    """
    classifier = source.build(n_classes, start_weights=False)
    state = {OURS + name.removeprefix(OURS): value for name, value in read_state(file, "weights").items()}
    own = classifier.state_dict()
    for name in [*sorted(own.keys() - state.keys()), *sorted(state.keys() - own.keys())]:
        raise AacaError(f"weights: {file} {'lacks' if name in own else 'has'} {name.removeprefix(OURS)}; of model=?")
    for name, value in state.items():
        if value.shape != own[name].shape:
            shapes = f"{tuple(value.shape)}; expected {tuple(own[name].shape)}"
            raise AacaError(f"weights: {file}: {name.removeprefix(OURS)} is {shapes} ({n_classes} classes)")
    classifier.load_state_dict(state)
    return classifier
