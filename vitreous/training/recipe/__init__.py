"""One validated description of a run, and the files it is read from."""
