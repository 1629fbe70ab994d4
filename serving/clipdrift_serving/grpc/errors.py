"""The one table of statuses."""

import grpc

from clipdrift_serving.dataplane.errors import Fault

STATUS_OF: dict[Fault, grpc.StatusCode] = {
    "bad_input": grpc.StatusCode.INVALID_ARGUMENT,
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "unknown_model": grpc.StatusCode.NOT_FOUND,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "method_not_allowed": grpc.StatusCode.UNIMPLEMENTED,
    "too_slow": grpc.StatusCode.DEADLINE_EXCEEDED,
    "too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unknown_encoding": grpc.StatusCode.INVALID_ARGUMENT,
    "no_answer": grpc.StatusCode.FAILED_PRECONDITION,
    "headers_too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "not_ready": grpc.StatusCode.UNAVAILABLE,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
