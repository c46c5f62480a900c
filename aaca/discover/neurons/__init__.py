"""Which inputs of the last layer a classifier's mistakes hang on, and what these neurons respond to (NeuroInspect)."""
