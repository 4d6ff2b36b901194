"""Images listed in tables, on disk and in Python, and map-style datasets."""
