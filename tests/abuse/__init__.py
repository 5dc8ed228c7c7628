"""Hostile and careless input, through the paths that people use: `python -m tests.abuse`, or `make abuse`."""
