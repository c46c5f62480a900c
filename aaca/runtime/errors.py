"""Errors that a user can mend: one line each, with the key or file, what was expected, the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


class AacaError(Exception):
    """An error the user can mend. `str(error)` is one line; the command line prints it and exits with status 1."""


class ConfigError(AacaError):
    """A configuration key or value is wrong."""


class DataError(AacaError):
    """An image, a table, a split or a stored artefact is not what it has to be."""


def nearest(name: str, choices: Iterable[str], n: int = 3) -> str:
    """A clause for an error line: the valid choices nearest to `name`, or all of them where none is near."""
    options = sorted({str(choice) for choice in choices})
    if not options:
        return "no valid choice exists"
    close = get_close_matches(str(name), options, n=n, cutoff=0.5)
    if close:
        return "nearest valid: " + ", ".join(close)
    return "valid: " + ", ".join(options[:20]) + (f", … ({len(options)} in all)" if len(options) > 20 else "")
