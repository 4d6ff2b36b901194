"""Data sets that others have published: torchvision's by name, and those of the Hugging Face hub."""
