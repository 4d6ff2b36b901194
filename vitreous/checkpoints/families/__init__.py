"""One file and one table of invertible rules per checkpoint family."""
