"""The first stage where two models differ, and the likely cause."""
