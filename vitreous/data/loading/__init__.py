"""Batches of a split, loaded by this process or by others."""
