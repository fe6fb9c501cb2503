"""Hard cases for every method and peer."""
