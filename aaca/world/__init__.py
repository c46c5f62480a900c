"""The embedded benchmark's world: an image pack, scenes drawn from it, and their renderer (plain numpy and Pillow)."""
