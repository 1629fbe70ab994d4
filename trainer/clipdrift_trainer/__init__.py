"""Clips gradients, records what clipping did, evaluates, exports, retrains.

Rooms in the order of the data: tasks (what is learned) -> clipping -> recording -> evaluation -> profiling, export, registry ->
training (one run) -> retraining (several runs against the model in service).
"""
