"""Kernels of the iterative methods, each with its invariant, and the stopping rules."""
