"""Decoded images on disk: each is decoded once."""
