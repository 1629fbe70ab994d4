"""Data types of the Open Inference Protocol, and what a tensor must fulfil before a model sees it."""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_serving.dataplane.errors import RequestError

Tensor = npt.NDArray[Any]
DTYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
BYTES = "BYTES"
_NAME_OF = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
_MAX_DIMENSIONS = 8
_MAX_STRING = 4096  # characters; recording pads the strings of a batch to the longest, so one long string would cost gigabytes
_FROM_ONNX = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64", "tensor(int8)": "INT8", "tensor(int16)": "INT16", "tensor(int32)": "INT32",
    "tensor(int64)": "INT64", "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}  # fmt: skip


def datatype_of_onnx(name: str) -> str:
    """The protocol's name of an ONNX element type.

    Raises:
        ValueError: The protocol has none.
    """
    if name not in _FROM_ONNX:
        raise ValueError(f"the Open Inference Protocol has no name for {name}")
    return _FROM_ONNX[name]


def datatype_of(tensor: Tensor) -> str:
    """The protocol's name of an array's type."""
    return _NAME_OF.get(tensor.dtype) or BYTES  # of any length, strings have a type for each


def check_form(name: str, datatype: str, shape: Sequence[int], known: Collection[str]) -> int:
    """Number of elements of an input as it is described.

    Args:
        known: Names of the inputs before it.

    Raises:
        RequestError: It comes twice, its data type is none of the protocol's, or its shape cannot be.
    """
    if name in known:
        raise RequestError("bad_input", f"input {name[:100]!r} is given twice")
    if datatype != BYTES and datatype not in DTYPES:
        names = ", ".join((*DTYPES, BYTES))
        raise RequestError("bad_input", f"input {name[:100]!r}: datatype must be one of {names}, got {datatype[:20]!r}")
    if len(shape) > _MAX_DIMENSIONS or any(dimension < 1 for dimension in shape):
        raise RequestError(
            "bad_input",
            f"input {name[:100]!r}: shape must be at most {_MAX_DIMENSIONS} numbers >= 1, got {str(list(shape)[:10])[:200]}",
        )
    return prod(shape)


class InputSpec:
    """What one input of a model accepts: type, shape after the batch, and whether NaN is a missing value."""

    def __init__(self, name: str, datatype: str, shape: Sequence[int | str | None], *, is_nullable: bool) -> None:
        self.name = name
        self.datatype = datatype
        self.row_shape: tuple[int, ...] = tuple(d if isinstance(d, int) else -1 for d in shape[1:])
        self.shape = [-1, *self.row_shape]
        self.is_nullable = is_nullable
        self._dtype = np.dtype(object if datatype == BYTES else DTYPES[datatype])

    def fitted(self, tensor: Tensor) -> Tensor:
        """The tensor as the model takes it; a trailing dimension of 1 on a plain column is dropped.

        Raises:
            RequestError: Wrong type or shape.
        """
        if tensor.dtype is not self._dtype and datatype_of(tensor) != self.datatype:
            given = datatype_of(tensor)
            raise RequestError("bad_input", f"input {self.name!r}: datatype must be {self.datatype}, got {given}")
        shape = tensor.shape
        if shape and shape[1:] == self.row_shape:
            return tensor
        if not self.row_shape and len(shape) == 2 and shape[1] == 1:
            return tensor[:, 0]
        is_fitting = len(shape) == len(self.row_shape) + 1 and all(
            want in (-1, got) for want, got in zip(self.row_shape, shape[1:], strict=False)
        )
        if not is_fitting:
            raise RequestError("bad_input", f"input {self.name!r}: shape must be {self.shape}, got {list(shape)}")
        return tensor

    def check_values(self, tensor: Tensor) -> None:
        """Raises RequestError where a value is not finite and must be, or a string is too long."""
        if tensor.dtype.kind == "f":
            if not np.isfinite(tensor).all():
                self._check_finite(tensor)
        elif tensor.dtype.kind == "O" and max(map(len, tensor.ravel())) > _MAX_STRING:
            raise RequestError("bad_input", f"input {self.name!r}: a string holds at most {_MAX_STRING} characters")

    def _check_finite(self, tensor: Tensor) -> None:
        is_wrong = np.isinf(tensor) if self.is_nullable else ~np.isfinite(tensor)
        if is_wrong.any():
            allowed = "finite, or NaN (null) for a missing value" if self.is_nullable else "finite"
            row = int(np.argwhere(is_wrong)[0][0])
            raise RequestError("bad_input", f"input {self.name!r}: values must be {allowed}; row {row} is not")


def check_inputs(specs: Mapping[str, InputSpec], given: Mapping[str, Tensor], max_rows: int) -> tuple[dict[str, Tensor], int]:
    """The inputs as the model takes them, and their number of rows. Their values are still to be checked.

    Raises:
        RequestError: An input is missing, unknown, of the wrong type or shape, or the inputs differ in their number of rows.
    """
    if given.keys() != specs.keys():
        missing, unknown = sorted(set(specs) - set(given)), sorted(set(given) - set(specs))
        words = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown[:10]}"] * bool(unknown)
        raise RequestError("bad_input", f"inputs must be exactly {sorted(specs)}: {', '.join(words)}")
    checked = {name: specs[name].fitted(tensor) for name, tensor in given.items()}
    counts = {len(tensor) for tensor in checked.values()}
    if len(counts) > 1:
        by_name = {name: len(tensor) for name, tensor in checked.items()}
        raise RequestError("bad_input", f"inputs differ in their number of rows: {by_name}")
    num_rows = counts.pop()
    if num_rows > max_rows:
        raise RequestError("too_large", f"a request holds at most {max_rows} rows, got {num_rows}")
    if num_rows == 0:
        raise RequestError("bad_input", "a request holds at least one row, got 0")
    return checked, num_rows


def check_values(specs: Mapping[str, InputSpec], inputs: Mapping[str, Tensor]) -> None:
    """Raises RequestError where a value of one of the inputs is not one that the model accepts."""
    for name, tensor in inputs.items():
        specs[name].check_values(tensor)
