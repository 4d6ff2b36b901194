"""The experiments of docs/results.md; `make results` runs them."""
