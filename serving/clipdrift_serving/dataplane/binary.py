"""Tensors as bytes, as both transports carry them: little endian, row by row; a string is its length as u32 and its UTF-8.

Source: Triton's binary tensor data extension; `raw_input_contents` of the Open Inference Protocol over gRPC.
"""

from collections.abc import Sequence

import numpy as np

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.tensors import BYTES, DTYPES, Tensor


def from_binary(name: str, datatype: str, shape: Sequence[int], num_elements: int, data: bytes) -> Tensor:
    """The tensor of input `name` that `data` holds; numbers are not copied.

    Raises:
        RequestError: The bytes are more or fewer than the shape says, or no UTF-8.

    Example:
        >>> from_binary("x", "FP32", [2], 2, to_binary(np.array([0.5, 1.5], "f4"))).tolist()
        [0.5, 1.5]
    """
    if datatype == BYTES:
        return _strings(name, data, num_elements).reshape(shape)
    dtype = np.dtype(DTYPES[datatype])
    if len(data) != num_elements * dtype.itemsize:
        wanted = num_elements * dtype.itemsize
        raise RequestError("bad_input", f"input {name!r}: {list(shape)} of {datatype} is {wanted} bytes, got {len(data)}")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def to_binary(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    if tensor.dtype.kind in "OUS":
        words = [str(word).encode() for word in tensor.ravel()]
        return b"".join(len(word).to_bytes(4, "little") + word for word in words)
    return np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()


def _strings(name: str, data: bytes, num_elements: int) -> Tensor:
    words: list[bytes] = []
    position = 0
    while position + 4 <= len(data) and len(words) < num_elements:
        length = int.from_bytes(data[position : position + 4], "little")
        words.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    if position != len(data) or len(words) != num_elements:
        raise RequestError("bad_input", f"input {name!r}: the bytes do not hold {num_elements} strings with their lengths")
    return strings_of(name, words)


def strings_of(name: str, words: Sequence[bytes]) -> Tensor:
    """Words as a tensor of strings, shape [N]; raises RequestError where one is not UTF-8."""
    try:
        return np.array([word.decode() for word in words], dtype=object)
    except UnicodeDecodeError as error:
        raise RequestError("bad_input", f"input {name!r}: strings must be UTF-8") from error
