"""How good captions are, and whether they do what their graph says."""
