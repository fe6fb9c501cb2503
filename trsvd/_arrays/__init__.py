"""Everything that depends on the array library: namespaces, dtypes, reductions, factorizations."""
