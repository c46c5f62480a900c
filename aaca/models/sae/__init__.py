"""Sparse autoencoders: a vector as a short sum of many directions."""
