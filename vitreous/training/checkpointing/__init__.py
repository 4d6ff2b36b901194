"""Checkpoints of a run: atomic, verified, and resumed to the bit."""
