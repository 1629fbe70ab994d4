"""Drift: how far a window's bins lie from the reference, against what chance alone would give. It explains and warns; it never
pages."""
