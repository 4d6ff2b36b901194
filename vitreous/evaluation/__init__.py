"""How good a model is, measured over samples."""
