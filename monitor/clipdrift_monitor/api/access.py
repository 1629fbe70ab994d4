"""Who may read, respond and order at the monitor's HTTP interface, and by which name that is remembered."""

import hmac
import threading
from collections.abc import Mapping
from typing import Literal

from clipdrift_contract.access.keys import ApiKeys, UnauthorizedError, credentials, from_basic

MonitorScope = Literal["read", "respond", "operate", "approve", "report"]
_HOW = "this needs the header Authorization: Bearer <api token>"


class Access:
    """Lets in who has the project's token, for everything, or a key of the scope. Thread-safe.

    Args:
        token: The project's API token; empty: there is none.
        keys: Keys with scopes; None: there is no file of them.
        does_reading_need_key: Whether pages and questions are for known readers only.
    """

    def __init__(self, token: str, keys: ApiKeys | None = None, *, does_reading_need_key: bool = False) -> None:
        self._token = f"Bearer {token}".encode() if token else b""
        self._keys = keys
        self._does_reading_need_key = does_reading_need_key
        self._lock = threading.Lock()  # keys are for one thread

    def check(self, headers: Mapping[str, str], scope: MonitorScope, model: str | None = None) -> str:
        """The name of the key's holder; "" for who has the project's token, or where nothing is asked for.

        Args:
            headers: Of the request. A browser may give a key as the password of Basic authentication, for reading.
            scope: What is asked for.
            model: Which model it is about; None: none in particular.

        Raises:
            UnauthorizedError: Nobody known is asking.
            ForbiddenError: The key does not reach so far.

        Example:
            >>> Access("secret").check({"authorization": "Bearer secret"}, "operate")
            ''
            >>> Access("secret").check({}, "read")
            ''
            >>> Access("secret").check({}, "respond")
            Traceback (most recent call last):
            clipdrift_contract.access.keys.UnauthorizedError: this needs the header Authorization: Bearer <api token>
        """
        if scope == "read" and not self._does_reading_need_key:
            return ""
        given = credentials(
            {name.encode(): headers[name].encode() for name in ("authorization", "x-api-key") if name in headers}
        )
        if given is not None and scope == "read":
            given = from_basic(given)
        if self._token and given is not None and hmac.compare_digest(given, self._token):
            return ""
        if self._keys is None or self._keys.is_open:
            raise UnauthorizedError(_HOW)
        with self._lock:
            return self._keys.check(given, scope, model)
