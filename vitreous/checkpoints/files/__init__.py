"""Tensors in untrusted files, read one by one and written back."""
