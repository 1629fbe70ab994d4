"""How good a model is on rows it has not seen: per slice, calibrated or not, and how its errors hang together in time."""
