"""The standard's numbers, each in one place."""
