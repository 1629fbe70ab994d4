"""Clipping rules, each a drop-in for torch's own, each keeping what it saw for the recorder."""
