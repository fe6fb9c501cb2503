"""Kernels of the iterative methods, and stopping rules."""
