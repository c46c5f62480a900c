"""Images that a network makes up for a neuron, seen with the eyes of one class (NeuroInspect's CLIP-Illusion)."""
