"""What clipping did in the runs behind a model, and what shadow retrains proved about it."""
