"""Build it yourself: the reading copy with its boxes blank, and a check of each; see docs/paper/build.md."""
