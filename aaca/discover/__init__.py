"""A trained classifier in, evidence out: attribution maps, concepts in images, statistics, concept sets."""
