"""Sentences around a class's words, for guidance by an image-text model: 10 views × 2 nouns + 12 more."""

NOUNS = ("photo", "picture")
VIEWS = (
    "a {} of a part of",
    "a sharp {} of",
    "a simple {} of",
    "a {} of many",
    "a tidy {} of",
    "my own {} of",
    "a {} from nearby of",
    "the {} of",
    "an enlarged {} of",
    "a {} from far away of",
)
MORE = (
    "a fine photo of {}",
    "a little photo of {}",
    "a strange photo of {}",
    "an amusing photo of {}",
    "a tiny photo of {}",
    "a big photo of {}",
    "a well made photo of {}",
    "a trimmed photo of {}",
    "a photo of a single {}",
    "a sunlit photo of {}",
    "the toy version of {}",
    "an artist's rendering of {}",
)
TEMPLATES: tuple[str, ...] = (*(f"{view.format(noun)} {{}}" for view in VIEWS for noun in NOUNS), *MORE)
