"""One truncated SVD, from the arguments to the result."""
