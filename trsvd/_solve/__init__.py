"""One truncated SVD, from the arguments to the result: `svds`, method choice, driver, checks."""
