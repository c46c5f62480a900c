"""Text templates with one nameless slot: "a photo of {}"."""

from string import Formatter

from aaca.runtime.errors import ConfigError


def check_template(template: str, key: str) -> None:
    """Raise `ConfigError` naming `key` unless `template` holds `{}` once and no other brace."""
    try:
        slots = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError:
        slots = []
    if slots != [""] or template.count("{") != 1:
        raise ConfigError(f"{key}: {template!r}; expected {{}} once, for the name, and no other brace")
