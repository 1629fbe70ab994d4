"""What can be wrong with a request, independent of the transport that brought it."""

from typing import Literal

from clipdrift_contract.errors import ClipdriftError

Fault = Literal[
    "bad_input", "unknown_model", "not_ready", "busy", "too_large", "unauthorized", "forbidden", "not_found",
    "method_not_allowed", "no_answer", "too_slow", "headers_too_large", "unknown_encoding",
]  # fmt: skip


class RequestError(ClipdriftError):
    """The request cannot be answered; the message says what was wrong, what we got, what is allowed."""

    def __init__(self, fault: Fault, message: str, *, allowed: str = "") -> None:
        super().__init__(message)
        self.fault: Fault = fault
        self.allowed = allowed  # the methods that would do, where the method was the fault
