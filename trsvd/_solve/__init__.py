"""Truncated SVD from arguments to result: `svds`, choice of the method, driver, checks."""
