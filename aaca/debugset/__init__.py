"""Debug sets: which images are added to the training set. A selector picks them from a pool, class by class."""
