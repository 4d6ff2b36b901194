"""The Vision Transformer of arXiv 2010.11929: one file for each box of its Figure 1."""
