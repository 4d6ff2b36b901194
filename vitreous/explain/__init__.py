"""Seeing inside: what goes into and out of every stage, and where two models differ."""
