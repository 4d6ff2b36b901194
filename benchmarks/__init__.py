"""Measurements against the authors' code, against other libraries, and of design choices; each prints its table."""
