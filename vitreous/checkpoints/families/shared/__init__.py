"""What all checkpoint families share: rules between keys, what a family is, how it is read."""
