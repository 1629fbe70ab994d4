"""Where windows go: the bus, files, Prometheus, MLflow, TensorBoard. A sink that fails never fails the training."""

from clipdrift_trainer.recording.sinks.window_sink import WindowSink

__all__ = ["WindowSink"]
