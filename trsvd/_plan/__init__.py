"""Estimates of cost and precision: whether Lanczos or a Gram matrix is worthwhile."""
