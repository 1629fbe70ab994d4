"""Clipping and recording in loops that are not ours: plain ones, Lightning, Hugging Face, Accelerate, several processes."""
