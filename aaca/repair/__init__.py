"""From a debug set, from concept images or from groups to a repaired classifier."""
