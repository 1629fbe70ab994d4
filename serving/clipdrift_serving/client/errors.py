"""What a call of the client may raise, and which status of the server means what."""

from clipdrift_contract.errors import ClipdriftError, RetryableError


class ClientError(ClipdriftError):
    """Base of everything that a call raises; `status` is the server's, or None when it gave none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class InvalidRequestError(ClientError):
    """What was asked is wrong and will be wrong again: change it. Never tried again by the client."""


class UnknownModelError(InvalidRequestError):
    """The server has no such model, version or address."""


class AccessError(ClientError):
    """The API key is missing, unknown, or not allowed to do this."""


class UnavailableError(ClientError, RetryableError):
    """The server is away, busy or too slow, and the time for trying again is over. The same call may succeed later."""


class ServerFaultError(ClientError):
    """A fault inside the server; its log says more."""


class AnswerError(ClientError):
    """What answered does not speak the protocol: perhaps it is another server."""


RETRIED_STATUSES = frozenset({408, 429, 503, 504})
_ERRORS: dict[int, type[ClientError]] = {
    401: AccessError,
    403: AccessError,
    404: UnknownModelError,
    **dict.fromkeys(RETRIED_STATUSES, UnavailableError),
}


def error_of(status: int, message: str) -> ClientError:
    """The error that an answer with this status stands for.

    Example:
        >>> error_of(404, "unknown model 'pomp'")
        UnknownModelError("unknown model 'pomp'")
    """
    kind = _ERRORS.get(status, InvalidRequestError if 400 <= status < 500 else ServerFaultError)
    return kind(message, status)
