"""Networks only: how to build a classifier and where its weights start."""
