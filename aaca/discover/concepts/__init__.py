"""Which concepts an image shows, and where: one source a file, one table for all."""
