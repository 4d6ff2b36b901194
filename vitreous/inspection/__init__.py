"""Seeing inside: what goes into and out of every stage of a model."""
