"""What training gives: the experiments behind docs/results.md, which `make results` runs anew."""
