"""Serves ONNX models by the Open Inference Protocol, and knows how accurate they are.

Rooms in the order of a request: rest (bytes to tensors) -> dataplane (tensors to tensors, receipts) -> recording (to the bus).
"""
