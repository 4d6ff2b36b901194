"""A look at a data set before it is trained on: what would make the training unwise, and what to know."""
