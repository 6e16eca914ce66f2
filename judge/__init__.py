"""Reads a student's answers and says PASS, FAIL or UNSCORED; the `judge` command."""
