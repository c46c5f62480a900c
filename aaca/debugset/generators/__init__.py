"""Generators: where the images of a debug set come from when they are made, not picked."""
