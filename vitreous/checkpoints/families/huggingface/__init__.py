"""transformers' ViTs: one family, whose files have one of several layouts, each named by a model_type."""
