"""Requests and answers of the Open Inference Protocol as bytes: JSON and binary tensors, mixed as the client likes.

Source: KServe Open Inference Protocol (REST), and Triton's binary tensor data extension.
"""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import orjson

from clipdrift_serving.dataplane.asked import Answer
from clipdrift_serving.dataplane.binary import from_binary, to_binary
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.tensors import BYTES, DTYPES, Tensor, check_form, datatype_of

_MAX_OUTPUTS = 64


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()  # empty: not given
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """An inference request as it stands in the JSON part of a body."""

    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] = []
    parameters: dict[str, Any] = {}


class FeedbackRequest(msgspec.Struct):
    """Labels in lists of one length: by receipt, or by the caller's own request id and the row in that request."""

    labels: list[Any]
    receipts: list[Any] | None = None
    request_ids: list[Any] | None = None
    rows: list[Any] | None = None  # 0 where not given
    label_times_ms: list[Any] | None = None


_FAST_FLOATS = {"FP32": "f", "FP64": "d"}  # type codes of array and of numpy
_decode_floats = msgspec.json.Decoder(list[float]).decode
_decode_infer = msgspec.json.Decoder(InferRequest).decode
_decode_feedback = msgspec.json.Decoder(FeedbackRequest).decode


def decode_infer(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, Tensor]]:
    """The request and its input tensors.

    Args:
        body: The whole body.
        header_length: Value of `Inference-Header-Content-Length`: where JSON ends and binary data begins.

    Raises:
        RequestError: What is wrong with it, in words.
    """
    split = len(body) if header_length is None else _header_length(header_length, len(body))
    try:
        request = _decode_infer(body[:split])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("bad_input", f"the request is not valid: {error}") from error
    if len(request.outputs) > _MAX_OUTPUTS:
        raise RequestError("bad_input", f"at most {_MAX_OUTPUTS} outputs may be asked for, got {len(request.outputs)}")
    tensors: dict[str, Tensor] = {}
    position = split
    for one in request.inputs:
        num_elements = check_form(one.name, one.datatype, one.shape, tensors)
        size = one.parameters.get("binary_data_size")
        if size is not None:
            data = _take(body, position, one.name, size)
            tensors[one.name] = _from_binary(one, data, num_elements)
            position += len(data)
        else:
            tensors[one.name] = _from_json(one, num_elements)
    if position != len(body):
        raise RequestError("bad_input", f"{len(body) - position} bytes follow the last tensor; binary_data_size must add up")
    return request, tensors


def decode_feedback(body: bytes) -> FeedbackRequest:
    """Labels by receipt; raises RequestError with the reason."""
    try:
        return _decode_feedback(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("bad_input", f"the feedback is not valid: {error}") from error


def encode_answer(request: InferRequest, answer: Answer) -> tuple[bytes, int | None]:
    """The body, and where its JSON ends when binary tensors follow."""
    wanted = _wanted(request, answer.outputs)
    outputs, binary = [], []
    for name, is_binary in wanted:
        tensor = answer.outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(tensor), "shape": list(tensor.shape)}
        if is_binary:
            data = to_binary(tensor)
            entry["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            entry["data"] = _as_json(tensor)
        outputs.append(entry)
    header: dict[str, Any] = {
        "model_name": answer.model,
        "model_version": answer.version,
        "outputs": outputs,
        "parameters": {"receipts": answer.receipts, "generation": answer.generation, "role": answer.role},
    }
    if answer.more_receipts:
        header["parameters"]["more_receipts"] = answer.more_receipts
    if request.id:
        header["id"] = request.id
    encoded = orjson.dumps(header, option=orjson.OPT_SERIALIZE_NUMPY)
    return (encoded + b"".join(binary), len(encoded)) if binary else (encoded, None)


def _as_json(tensor: Tensor) -> Any:
    """Row-major values, as orjson writes them."""
    if tensor.dtype.kind not in "biuf":
        return tensor.ravel().tolist()
    return tensor.astype(np.float32).ravel() if tensor.dtype == np.float16 else tensor.ravel()


def _wanted(request: InferRequest, outputs: Mapping[str, Tensor]) -> list[tuple[str, bool]]:
    default = bool(request.parameters.get("binary_data_output", False))
    if not request.outputs:
        return [(name, default) for name in outputs]
    return [(one.name, bool(one.parameters.get("binary_data", default))) for one in request.outputs]


def _header_length(text: str, size: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > size:
        raise RequestError("bad_input", f"Inference-Header-Content-Length must be a number up to {size}, got {text[:20]!r}")
    return int(text)


def _take(body: bytes, position: int, name: str, size: Any) -> bytes:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0 or position + size > len(body):
        left = len(body) - position
        raise RequestError("bad_input", f"input {name!r}: binary_data_size must be in 0..{left}, got {str(size)[:30]}")
    return body[position : position + size]


def _from_binary(one: _Input, data: bytes, num_elements: int) -> Tensor:
    if len(bytes(one.data)):
        raise RequestError("bad_input", f"input {one.name!r} has data and binary_data_size; give one of them")
    return from_binary(one.name, one.datatype, one.shape, num_elements, data)


def _from_json(one: _Input, num_elements: int) -> Tensor:
    fast = _FAST_FLOATS.get(one.datatype)
    if fast is not None:
        try:
            floats = _decode_floats(one.data)
            if len(floats) == num_elements:
                # by way of an array, which makes a number too large infinite, as below, and does not warn as numpy does
                tensor: Tensor = np.frombuffer(array(fast, floats), fast)
                return tensor.reshape(one.shape)
        except msgspec.DecodeError:
            pass  # nested lists, nulls, or a mistake that is told below
    return _from_any_json(one, num_elements)


def _from_any_json(one: _Input, num_elements: int) -> Tensor:
    if not len(bytes(one.data)):
        raise RequestError("bad_input", f"input {one.name!r} has neither data nor binary_data_size")
    try:
        values = _flat(one.name, orjson.loads(bytes(one.data)))
    except orjson.JSONDecodeError as error:
        raise RequestError("bad_input", f"input {one.name!r}: data is not valid JSON: {error}") from error
    if len(values) != num_elements:
        raise RequestError("bad_input", f"input {one.name!r}: shape {one.shape} is {num_elements} values, got {len(values)}")
    if one.datatype == BYTES:
        if not all(isinstance(value, str) for value in values):
            raise RequestError("bad_input", f"input {one.name!r}: BYTES data must be strings")
        return np.array(values, dtype=object).reshape(one.shape)
    return _numbers(one, values).reshape(one.shape)


def _flat(name: str, data: Any) -> list[Any]:
    """Nested lists as one list, in row-major order; a list that is flat already is returned as it is."""
    if not isinstance(data, list):
        raise RequestError("bad_input", f"input {name[:100]!r}: data must be a list, got {type(data).__name__}")
    values: list[Any] = data
    while values and isinstance(values[0], list):
        if not all(isinstance(part, list) for part in values):
            raise RequestError("bad_input", f"input {name[:100]!r}: data mixes lists and values")
        values = [value for part in values for value in part]
    return values


def _numbers(one: _Input, values: Sequence[Any]) -> Tensor:
    """JSON numbers as the datatype; null is NaN in a float tensor."""
    dtype = np.dtype(DTYPES[one.datatype])
    allowed: tuple[type, ...] = (bool,) if dtype.kind == "b" else (int, float, type(None)) if dtype.kind == "f" else (int,)
    kinds = set(map(type, values))
    if not kinds <= set(allowed):
        given = sorted(kind.__name__ for kind in kinds)
        raise RequestError("bad_input", f"input {one.name!r}: {one.datatype} data cannot hold {given}")
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore"):  # a number too large becomes infinite, and the check of finite values says so
                return np.array(values, dtype=np.float64).astype(dtype)
        return np.array(values, dtype=dtype)
    except (OverflowError, ValueError) as error:
        raise RequestError("bad_input", f"input {one.name!r}: a value does not fit {one.datatype}: {error}") from error
