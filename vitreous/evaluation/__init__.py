"""Metrics and probes, computed over samples."""
