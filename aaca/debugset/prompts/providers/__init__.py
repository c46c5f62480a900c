"""Who names the concepts of a class: lists in a file, an OpenAI-compatible endpoint, a local language model."""
