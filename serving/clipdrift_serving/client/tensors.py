"""Columns as the caller has them become tensors as the model takes them; and tensors on the wire, JSON and binary.

Source: KServe Open Inference Protocol (REST), and Triton's binary tensor data extension.
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from clipdrift_serving.client.errors import AnswerError, InvalidRequestError
from clipdrift_serving.dataplane.binary import from_binary, to_binary
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.tensors import BYTES, DTYPES, Tensor


def columns_of(inputs: Any) -> dict[str, Any]:
    """Columns by name of a mapping, or of a frame: anything with `columns` and `frame[name]`, as pandas and polars have.

    Raises:
        InvalidRequestError: It is neither, or empty.
    """
    if hasattr(inputs, "columns"):
        names: Iterable[Any] = inputs.columns
    elif isinstance(inputs, Mapping):
        names = inputs
    else:
        raise InvalidRequestError(f"inputs must be a mapping of columns or a data frame, got {type(inputs).__name__}")
    columns = {str(name): inputs[name] for name in names}
    if not columns:
        raise InvalidRequestError("inputs have no column")
    return columns


def as_tensor(name: str, column: Any, datatype: str) -> Tensor:
    """A column as the model takes it: numbers as its datatype where none of them changes, words as objects of str.

    A float may be rounded to the model's width; a whole number must fit. None and NaN are a missing value, in floats only. A
    single value is one row.

    Raises:
        InvalidRequestError: A value that the datatype cannot hold.

    Example:
        >>> as_tensor("pressure", [4.1, None], "FP32")
        array([4.1, nan], dtype=float32)
    """
    values = _values(name, column)
    values = values.reshape(1) if values.ndim == 0 else values
    if datatype == BYTES:
        return _words(name, values)
    if datatype not in DTYPES:
        raise AnswerError(f"the model takes {datatype!r} as {name!r}, which this client does not know")
    if values.dtype.kind in "US" or any(isinstance(value, str | bytes) for value in values.ravel()[:1]):
        raise InvalidRequestError(f"input {name!r}: the model takes {datatype}, got words")
    return _numbers(name, values, datatype)


def _values(name: str, column: Any) -> Tensor:
    try:
        if hasattr(column, "to_numpy"):
            values: Tensor = np.asarray(column.to_numpy())
            if values.dtype == object and hasattr(column, "isna"):
                values = values.copy()
                values[np.asarray(column.isna(), bool)] = None  # pandas has missing values of its own kind
            return values
        return np.asarray(column)
    except ValueError as error:
        raise InvalidRequestError(f"input {name!r}: rows must have one shape: {error}") from error


def _words(name: str, values: Tensor) -> Tensor:
    words = np.empty(values.size, object)
    for index, value in enumerate(values.ravel()):
        if isinstance(value, bytes):
            value = value.decode("utf-8", "strict")
        if not isinstance(value, str):
            raise InvalidRequestError(f"input {name!r}: the model takes words; row {index} is {str(value)[:50]!r}")
        words[index] = str(value)
    return words.reshape(values.shape)


def _numbers(name: str, values: Tensor, datatype: str) -> Tensor:
    dtype = np.dtype(DTYPES[datatype])
    if values.dtype == dtype:
        return values
    if values.dtype.kind not in "biufO":
        raise InvalidRequestError(f"input {name!r}: the model takes {datatype}, got {values.dtype}")
    if dtype.kind == "b" and values.dtype.kind != "b" and not all(isinstance(value, bool) for value in values.ravel()):
        raise InvalidRequestError(f"input {name!r}: the model takes BOOL, got {values.dtype}")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            given = values.astype(np.float64) if values.dtype == object and dtype.kind == "f" else values
            made: Tensor = given.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"input {name!r}: the model takes {datatype}: {error}") from error
    is_kept = np.isfinite(made) | ~np.isfinite(given) if dtype.kind == "f" else made == given
    if not np.all(is_kept):
        row = int(np.argwhere(~np.asarray(is_kept, bool))[0][0])
        raise InvalidRequestError(f"input {name!r}: row {row} does not fit {datatype}, got {values[row]!r}")
    return made


# --- the wire ---------------------------------------------------------------------------------------------------------------


def as_entry(name: str, tensor: Tensor, datatype: str, *, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """A tensor's JSON, and the bytes that follow the JSON part of the body when it is binary."""
    entry: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "datatype": datatype}
    if not is_binary:
        entry["data"] = tensor.ravel().tolist()
        return entry, b""
    data = to_binary(tensor)
    entry["parameters"] = {"binary_data_size": len(data)}
    return entry, data


def as_outputs(entries: Iterable[Mapping[str, Any]], binary: bytes) -> dict[str, Tensor]:
    """The arrays of an answer's `outputs`, by name.

    Raises:
        AnswerError: They are not what the protocol says.
    """
    outputs: dict[str, Tensor] = {}
    position = 0
    try:
        for entry in entries:
            name, datatype, shape = str(entry["name"]), str(entry["datatype"]), [int(size) for size in entry["shape"]]
            size = entry.get("parameters", {}).get("binary_data_size")
            if size is None:
                outputs[name] = _of_json(entry["data"], datatype, shape)
                continue
            outputs[name] = from_binary(name, datatype, shape, prod(shape), binary[position : position + size])
            position += size
    except (KeyError, TypeError, ValueError, AttributeError, RequestError) as error:
        raise AnswerError(f"an output is not what the protocol says: {type(error).__name__}: {error}") from error
    return outputs


def _of_json(data: Any, datatype: str, shape: list[int]) -> Tensor:
    if datatype == BYTES:
        words = np.empty(prod(shape), object)
        words[:] = data
        return words.reshape(shape)
    dtype = np.dtype(DTYPES[datatype])
    return np.array(data, dtype=np.float64 if dtype.kind == "f" else None).astype(dtype).reshape(shape)
