"""Shared by every package: user errors, atomic files, safe text, and the host machine."""
