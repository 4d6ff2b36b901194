"""Training: a recipe, one update, the loop around it, and the folder of a run."""
