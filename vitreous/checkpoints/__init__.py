"""Weights in and out of every family: a table of invertible rules each, and one engine that applies them."""
