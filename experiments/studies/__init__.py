"""Questions that were asked by a sweep: one folder each, with the command, the table and what it says."""
