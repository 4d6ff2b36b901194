"""Build a ViT yourself: the reading copy with blank boxes, and a check for each; see docs/paper/build.md."""
