"""TLS of the listeners: a certificate that is read again when its files change, so that a renewal needs no restart."""

import logging
import ssl
from pathlib import Path

from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ConfigError
from clipdrift_serving.access.changes import FileChanges

_log = logging.getLogger(__name__)


class TlsContext:
    """A server's TLS context; new connections get the newest certificate that fits its key.

    Files that cannot be read, or a certificate that does not fit the key (a renewal writes one after the other), leave the old
    pair in use; it is said once for each change. One thread only.

    Args:
        certificate: PEM file of the certificate and its chain.
        key: PEM file of the private key, without a password.
        client_ca: PEM file of authorities; only clients with a certificate of one of them are let in. Read at the start only.
        clock: Says when to look again.

    Raises:
        ConfigError: The files cannot be used at the start.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None, clock: Clock) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._changes = FileChanges([certificate, key], clock)
        self.num_refused = 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.context.load_cert_chain(certificate, key, password=_no_password)
            if client_ca is not None:
                self.context.load_verify_locations(client_ca)
                self.context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise ConfigError(f"TLS cannot begin with {certificate} and {key}: {error}") from error

    def refresh(self) -> bool:
        """Read the files again if they have changed; whether a new pair is in use."""
        if not self._changes.have_changed():
            return False
        try:
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # a pair that does not fit must not half replace the one in use
            trial.load_cert_chain(self._certificate, self._key, password=_no_password)
            self.context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            self.num_refused += 1
            _log.error("the TLS certificate stays as it was: %s cannot be used: %s", self._certificate, error)
            return False
        _log.info("a new TLS certificate is in use: %s", self._certificate)
        return True

    def pair(self) -> tuple[bytes, bytes]:
        """Key and certificate as PEM, as gRPC wants them.

        Raises:
            OSError: A file cannot be read.
        """
        return self._key.read_bytes(), self._certificate.read_bytes()

    def client_authorities(self) -> bytes | None:
        """The authorities of clients as PEM; None: no certificate is asked of them."""
        return None if self._client_ca is None else self._client_ca.read_bytes()


def _no_password() -> str:
    """Without this, OpenSSL asks at the terminal."""
    raise ValueError("the private key has a password; store it without one, readable by the server alone")
