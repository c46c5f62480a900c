"""aaca: find out why an image classifier fails, repair it, and prove the repair."""

__version__ = "0.8.0"
