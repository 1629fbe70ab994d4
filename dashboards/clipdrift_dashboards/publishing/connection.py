"""A Grafana that is spoken to over HTTP, by either of two client libraries: grafana-client, or grafana-api."""

from typing import Any, Literal
from urllib.parse import urlsplit

from clipdrift_contract.errors import ClipdriftError, ConfigError

Method = Literal["GET", "POST", "PUT", "DELETE"]
TIMEOUT_SECONDS = 20.0


class GrafanaError(ClipdriftError):
    """Grafana refused a request, or could not be reached.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        body: The answer's JSON, where it had one.
    """

    def __init__(self, message: str, status: int = 0, body: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body if isinstance(body, dict) else {}


class Connection:
    """Requests to one Grafana. Not thread-safe, as its clients are not.

    Args:
        client: A `grafana_client.GrafanaApi`, or a `GrafanaFace` of the older grafana-api.

    Raises:
        ConfigError: It is neither.
    """

    def __init__(self, client: Any) -> None:
        found = getattr(client, "client", None) or getattr(client, "api", None)
        if found is None or not hasattr(found, "url"):
            raise ConfigError(
                f"expected a grafana_client.GrafanaApi or a grafana_api GrafanaFace, got {type(client).__name__}; "
                "give an address and a token instead"
            )
        self._requests = found
        self.url = str(found.url).removesuffix("/api")

    def ask(self, method: Method, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The JSON that Grafana answers to a request below /api.

        Raises:
            GrafanaError: It was refused, or there was no answer; the message says what to do.
        """
        try:
            return getattr(self._requests, method)(path, json=body, headers=headers)
        except Exception as error:  # two libraries, each with errors of its own and of its HTTP library
            status = int(getattr(error, "status_code", 0) or 0)
            answer = getattr(error, "response", None)
            raise GrafanaError(self._words(method, path, status, answer, error), status, answer) from error

    def find(self, path: str) -> Any:
        """The same for what may not be there: None on 404."""
        try:
            return self.ask("GET", path)
        except GrafanaError as error:
            if error.status == 404:
                return None
            raise

    def version(self) -> str:
        """Of Grafana, as "12.4.0".

        Raises:
            GrafanaError: There is no Grafana there, or it is too old.
        """
        told = self.ask("GET", "/health")
        version = str(told.get("version", "")) if isinstance(told, dict) else ""
        if not version:  # hidden from anonymous callers where Grafana is set so
            return ""
        major = int(version.partition(".")[0])
        if major < 10:
            raise GrafanaError(f"Grafana {version} at {self.url} is too old: these dashboards need Grafana 10 or newer")
        return version

    def _words(self, method: Method, path: str, status: int, answer: Any, error: Exception) -> str:
        what = f"{method} {path} at {self.url}"
        said = str(answer.get("message", "")) if isinstance(answer, dict) else ""
        match status:
            case 0:
                return f"no answer from Grafana ({what}): {error}; is the address right, and is Grafana up?"
            case 401:
                return (
                    f"Grafana at {self.url} does not know this token (401): make one of a service account with the role Editor "
                    "(Admin where a data source is to be made) and give it as GRAFANA_TOKEN"
                )
            case 403:
                return f"the token may not do this: {what} (403{f', {said}' if said else ''}); give its account that permission"
            case 404:
                return f"{what} is not there (404): give Grafana's address without /api, with its sub-path where it has one"
            case 412:
                return f"somebody else changed it meanwhile: {what} (412{f', {said}' if said else ''}); publish again"
        return f"Grafana refused {what} ({status}): {said or error}"


def connect(url: str, token: str) -> Connection:
    """A connection by grafana-client.

    Args:
        url: As http://grafana.example:3000, with the sub-path where Grafana has one.
        token: Of a service account; or "user:password".

    Raises:
        ConfigError: The address is none.
    """
    from grafana_client import GrafanaApi  # noqa: PLC0415  half a second of import that only publishing pays

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"expected Grafana's address as http://HOST:PORT, got {url!r}")
    if parts.username or parts.password:
        raise ConfigError("give user and password as GRAFANA_TOKEN=user:password, not in the address: addresses are logged")
    user, colon, password = token.partition(":")
    credential = (user, password) if colon else token
    return Connection(GrafanaApi.from_url(url.rstrip("/") + "/", credential or None, timeout=TIMEOUT_SECONDS))
