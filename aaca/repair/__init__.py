"""From a debug set (later: from concept sets) to a repaired classifier."""
