"""Labeled photos in trees of folders, on disk or in archives."""
