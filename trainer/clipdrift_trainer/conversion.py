"""Turns a module into an ONNX graph, by either of torch's exporters.

`trace` runs the module once and writes down what it did: fast, and blind to decisions that would fall otherwise for other rows.
`capture` understands the module's code and refuses what it cannot: seconds instead of tenths of one.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.export_error import ExportError

_TRACE_OPSET = 17
_CAPTURE_OPSET = 18  # the lowest that torch's newer exporter writes
_TORCH_FOLDER = Path(torch.__file__).parent
_BATCH = "batch"


class Question(NamedTuple):
    """A module with an example of what it is asked, and how the graph's inputs and output are to be called."""

    module: nn.Module
    kind: TaskKind
    temperature: float
    features: tuple[str, ...]  # names of the module's features, in order
    inputs: tuple[str, ...]  # of the graph, in the same order
    output: str
    example: tuple[torch.Tensor, ...]  # at least two rows: of one, the exporters take the number for a part of the module


Converter = Callable[[Question], onnx.ModelProto]


class Answering(nn.Module):
    """The module with positional inputs (what exporters understand) and its last step inside: float32 [N, K]."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self._module = question.module
        self._names = question.features
        self._kind = question.kind
        self._temperature = question.temperature
        self.eval()  # the exporters put this mode back afterwards, into the user's module too

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._module(dict(zip(self._names, tensors, strict=True)))
        answer = output if self._kind == "regression" else torch.softmax(output / self._temperature, dim=1)
        return answer if answer.dtype == torch.float32 else answer.float()


def trace(question: Question) -> onnx.ModelProto:
    """The graph of what the module does for the example.

    Raises:
        ExportError: torch has no translation, or the module's own code decides by its data or by the number of rows: the graph
            would hold one side of the decision for good.
    """
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            torch.onnx.export(
                Answering(question),
                question.example,
                buffer,  # type: ignore[arg-type]  # a buffer is allowed, the annotation is behind
                dynamo=False,
                opset_version=_TRACE_OPSET,
                input_names=list(question.inputs),
                output_names=[question.output],
                dynamic_axes={name: {0: _BATCH} for name in (*question.inputs, question.output)},
            )
    except Exception as error:  # the exporter raises whatever its passes raise; the user needs the reason
        raise ExportError(f"torch cannot trace it: {_short(error)}") from error
    for warning in raised:  # the others are about the exporter itself, or about torch's own layers, which it knows
        place = Path(warning.filename)
        if issubclass(warning.category, TracerWarning) and not place.is_relative_to(_TORCH_FOLDER):
            what = str(warning.message).partition(". ")[0]
            raise ExportError(f"tracing would freeze a decision ({place.name}, line {warning.lineno}: {what})")
    return onnx.load_from_string(buffer.getvalue())


def capture(question: Question) -> onnx.ModelProto:
    """The graph of the module's code, for any number of rows.

    Raises:
        ExportError: The code decides by its data, by the number of rows, or uses what ONNX does not have.
    """
    batch = torch.export.Dim(_BATCH, min=1)
    shapes = (tuple({0: batch} for _ in question.example),)
    try:
        with _quiet():
            program = torch.export.export(Answering(question), question.example, dynamic_shapes=shapes, strict=False)
            made = torch.onnx.export(
                program, dynamo=True, opset_version=_CAPTURE_OPSET, input_names=list(question.inputs),
                output_names=[question.output], external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # as above
        raise ExportError(f"torch.export cannot capture it: {_short(error)}") from error
    assert made is not None
    return _plain(made.model_proto)


def _plain(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Without what is not the model: paths and lines of the code it came from, notes on shapes; the batch under its name."""
    del graph.metadata_props[:], graph.graph.metadata_props[:], graph.graph.value_info[:]
    graph.doc_string = graph.graph.doc_string = ""
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of packages that nobody asked for, and prints the graph that it gave up."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _short(error: Exception) -> str:
    """The error's first line: torch adds pages to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


CONVERTERS: Sequence[Converter] = (trace, capture)
