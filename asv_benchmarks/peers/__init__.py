"""Calls of other libraries, for the race and the reliability suite."""
