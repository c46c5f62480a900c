"""Selectors: which K candidates of each class go into the debug set. One option a file; `base` has the role."""
