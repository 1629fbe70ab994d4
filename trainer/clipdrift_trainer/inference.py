"""Runs ONNX files on one thread, sending nothing home. Needs no torch."""

import os

# ONNX Runtime sends usage data home unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

_FATAL = 4  # what goes wrong is raised; its log only repeats it


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU, with one thread: it neither fights a training for cores nor sums in another order.

    Raises:
        Exception: ONNX Runtime has many types for a file that it cannot run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
