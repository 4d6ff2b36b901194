"""Measurements: beside the authors, beside the peers, and of our own choices; each prints its table."""
