"""Tokens of a GitHub App: an hour long, for one installation, renewed before they end. Needs the extra `github`."""

import base64
from pathlib import Path

import httpx
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clipdrift_contract.clock import MS_PER_SECOND, Clock
from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.actions.backends.backend import AwayError, UnsureError
from clipdrift_monitor.actions.backends.ci_client import CiClient, json_of
from clipdrift_monitor.actions.backends.github import API_VERSION
from clipdrift_monitor.actions.config import GithubConfig

_JWT_SECONDS = 540  # GitHub takes at most ten minutes
_DRIFT_SECONDS = 60  # its clock may be behind ours
_LIFE_MS = 3_000 * MS_PER_SECOND  # of an installation token, which GitHub ends after 3,600 s


class AppTokens:
    """Calling it gives a token that is good for some minutes at least.

    Args:
        config: The App's id and installation.
        key_path: Its private key, a PEM file.
        clock: For when a token ends.
        transport: In place of the network, for tests.

    Raises:
        ConfigError: The key cannot be read, or is no RSA key.
    """

    def __init__(
        self, config: GithubConfig, key_path: Path, clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._config = config
        self._key = _read_key(key_path)
        self._clock = clock
        self._http = CiClient("GitHub", config.api_url, clock, transport=transport)
        self._token = ""
        self._until_ms = 0

    def __call__(self) -> str:
        """A token.

        Raises:
            AwayError: GitHub gives none now.
            RefusedError: It knows no such App or installation, or not this key.
        """
        now_ms = self._clock.now_ms()
        if now_ms >= self._until_ms:
            try:
                answer = self._http.change(
                    "POST", f"/app/installations/{self._config.installation_id}/access_tokens", expected=(201,),
                    headers={
                        "accept": "application/vnd.github+json", "x-github-api-version": API_VERSION,
                        "authorization": f"Bearer {self._app_token(now_ms // MS_PER_SECOND)}",
                    },
                )  # fmt: skip
            except UnsureError as error:  # a token too many does no harm
                raise AwayError(str(error)) from error
            self._token, self._until_ms = str(json_of(answer)["token"]), now_ms + _LIFE_MS
        return self._token

    def _app_token(self, now_seconds: int) -> str:
        """A JSON web token (RFC 7519) that says who we are, signed with RS256."""
        claims = {"iat": now_seconds - _DRIFT_SECONDS, "exp": now_seconds + _JWT_SECONDS, "iss": self._config.app_id}
        signed = b".".join(_base64(msgspec.json.encode(part)) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
        return (signed + b"." + _base64(self._key.sign(signed, PKCS1v15(), SHA256()))).decode()


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _read_key(path: Path) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"the GitHub App's key cannot be read at {path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is no private key in PEM without a password; GitHub gives one as .pem") from error
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError(f"{path} is no RSA key; the App's page at GitHub gives one as .pem")
    return key
