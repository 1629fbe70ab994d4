"""The one table of statuses, and how an error reads on the wire."""

import orjson

from clipdrift_serving.dataplane.errors import Fault

STATUS_OF: dict[Fault, int] = {
    "bad_input": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_model": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "too_large": 413,
    "unknown_encoding": 415,
    "no_answer": 422,
    "headers_too_large": 431,
    "not_ready": 503,
    "busy": 503,
}


def error_body(message: str) -> bytes:
    """The protocol's error object."""
    return orjson.dumps({"error": message})
