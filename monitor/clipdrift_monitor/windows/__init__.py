"""Sums per model version, slice and window of time; whatever the order in which rows come, the sums are the same."""
