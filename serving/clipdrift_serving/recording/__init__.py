"""Predictions and labels, off the hot path, through a spool on disk to the bus."""
