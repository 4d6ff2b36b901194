"""The first stage at which two models differ, and the probable cause."""
