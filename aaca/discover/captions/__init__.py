"""Why a graph captioner says what it says, and which of its annotations are bad (EGA: explanation-guided debugging)."""
