"""Leading pairs to a gap, and the proofs of it."""
