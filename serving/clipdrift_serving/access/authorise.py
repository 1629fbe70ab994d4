"""Whether a request may be answered at all, the same for every listener and transport."""

import hmac
from collections.abc import Callable, Mapping
from typing import TypeAlias

from clipdrift_contract.access.keys import AccessScope, ApiKeys, ForbiddenError, UnauthorizedError, credentials
from clipdrift_serving.dataplane.errors import RequestError

Authorise: TypeAlias = Callable[[Mapping[bytes, bytes], AccessScope, str | None], object]
"""Raises RequestError unless these headers (names in lower case) may do what the scope names, to this model. Loop only."""


def authoriser(admin_token: str, keys: ApiKeys | None) -> Authorise:
    """Lets in who has the admin token (for `admin`) or a key of that scope; without keys all but `admin` is open.

    Example:
        >>> authorise = authoriser("secret", None)
        >>> authorise({b"authorization": b"Bearer secret"}, "admin", None)
        >>> authorise({}, "infer", "toy")
    """
    token = f"Bearer {admin_token}".encode() if admin_token else b""

    def authorise(headers: Mapping[bytes, bytes], scope: AccessScope, model: str | None) -> None:
        if scope == "admin" and token and hmac.compare_digest(headers.get(b"authorization", b""), token):
            return
        if keys is not None:
            try:
                keys.check(credentials(headers), scope, model)
            except UnauthorizedError as error:
                raise RequestError("unauthorized", str(error)) from error
            except ForbiddenError as error:
                raise RequestError("forbidden", str(error)) from error
        elif scope == "admin":
            raise RequestError("unauthorized", "this needs the header Authorization: Bearer <admin token>")

    return authorise
