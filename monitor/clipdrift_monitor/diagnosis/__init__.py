"""Why: where the lost accuracy went, which rules hold, and what clipping has to do with it."""
