"""Which part of an image speaks for a class: one method a file."""
