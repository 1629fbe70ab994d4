"""Requests and answers of the Open Inference Protocol as messages: raw or typed contents.

Source: KServe Open Inference Protocol (gRPC).
"""

import json
from typing import Any

import numpy as np

from clipdrift_serving.dataplane.asked import Answer
from clipdrift_serving.dataplane.binary import from_binary, strings_of, to_binary
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.tensors import BYTES, DTYPES, Tensor, check_form, datatype_of
from clipdrift_serving.grpc.protocol.messages import message

_Response = message("ModelInferResponse")
_MAX_OUTPUTS = 64
_FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip


def decode_tensors(request: Any) -> dict[str, Tensor]:
    """The input tensors of a ModelInferRequest.

    Raises:
        RequestError: What is wrong with them, in words.
    """
    raw = request.raw_input_contents
    if len(request.outputs) > _MAX_OUTPUTS:
        raise RequestError("bad_input", f"at most {_MAX_OUTPUTS} outputs may be asked for, got {len(request.outputs)}")
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            "bad_input", f"raw_input_contents must be one for each of {len(request.inputs)} inputs, got {len(raw)}"
        )
    tensors: dict[str, Tensor] = {}
    for index, one in enumerate(request.inputs):
        num_elements = check_form(one.name, one.datatype, one.shape, tensors)
        if raw and one.HasField("contents"):
            raise RequestError("bad_input", f"input {one.name[:100]!r} has contents and raw_input_contents; give one of them")
        if raw:
            tensors[one.name] = from_binary(one.name[:100], one.datatype, one.shape, num_elements, raw[index])
        else:
            tensors[one.name] = _from_typed(one, num_elements).reshape(tuple(one.shape))
    return tensors


def decode_parameters(parameters: Any) -> dict[str, Any]:
    """A map of InferParameter as plain values; one without a value is None."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: None if field is None else getattr(parameters[name], field) for name, field in chosen.items()}


def encode_answer(request: Any, answer: Answer) -> bytes:
    """A ModelInferResponse with raw contents; receipts are JSON in its parameters."""
    response = _Response(model_name=answer.model, model_version=answer.version, id=request.id)
    response.parameters["receipts"].string_param = json.dumps(answer.receipts)
    response.parameters["generation"].int64_param = answer.generation
    response.parameters["role"].string_param = answer.role
    if answer.more_receipts:
        response.parameters["more_receipts"].string_param = json.dumps(dict(answer.more_receipts))
    for name in [one.name for one in request.outputs] or answer.outputs:
        tensor = answer.outputs[name]
        response.outputs.add(name=name, datatype=datatype_of(tensor), shape=tensor.shape)
        response.raw_output_contents.append(to_binary(tensor))
    encoded: bytes = response.SerializeToString()
    return encoded


def _from_typed(one: Any, num_elements: int) -> Tensor:
    field = _FIELDS.get(one.datatype)
    if field is None:
        raise RequestError(
            "bad_input", f"input {one.name[:100]!r}: {one.datatype} has no typed contents; send raw_input_contents"
        )
    values = list(getattr(one.contents, field))
    if len(values) != num_elements:
        raise RequestError(
            "bad_input",
            f"input {one.name[:100]!r}: shape {list(one.shape)} is {num_elements} values of {field}, got {len(values)}",
        )
    if one.datatype == BYTES:
        return strings_of(one.name[:100], values)
    try:
        return np.array(values, dtype=DTYPES[one.datatype])
    except OverflowError as error:
        raise RequestError("bad_input", f"input {one.name[:100]!r}: a value does not fit {one.datatype}: {error}") from error
