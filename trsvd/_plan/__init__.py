"""Cost of a computation, and the precision that it needs."""
