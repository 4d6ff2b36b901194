"""Seeing inside: the inputs and outputs of every stage of a model."""
