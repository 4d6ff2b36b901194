"""Optimizer, schedule, averaging, precision, memory, and one update."""
