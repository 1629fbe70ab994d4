"""TLS of the listeners: a certificate that is read again when its files change, so that a renewal needs no restart."""

import logging
import ssl
from pathlib import Path
from typing import NamedTuple

from clipdrift_contract.access.changes import FileChanges
from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ConfigError

_log = logging.getLogger(__name__)


class _Files(NamedTuple):
    """What the files hold, as PEM."""

    key: bytes
    certificate: bytes
    client_ca: bytes | None


class TlsContext:
    """A server's TLS context; new connections get the newest certificate that fits its key.

    Files that cannot be read, or a certificate that does not fit the key (a renewal writes one after the other), leave what was
    read before in use; it is counted and said once for each change. One thread only, but `pair` may be called from any.

    Args:
        certificate: PEM file of the certificate and its chain.
        key: PEM file of the private key, without a password.
        client_ca: PEM file of authorities; only clients with a certificate of one of them are let in.
        clock: Says when to look again.

    Raises:
        ConfigError: The files cannot be used at the start.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None, clock: Clock) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._changes = FileChanges([file for file in (certificate, key, client_ca) if file is not None], clock)
        self.num_refused = 0
        try:
            self._tried: _Files | None = self._read()
            self._used = self._tried
            self._newest = self._context_of(self._tried)
        except (OSError, ValueError) as error:
            raise ConfigError(f"TLS cannot begin with {certificate} and {key}: {error}") from error
        self.context = self._newest
        self.context.sni_callback = self._hand_over

    def __repr__(self) -> str:
        """The place of the certificate, and nothing of the key."""
        return f"TlsContext({str(self._certificate)!r})"

    def refresh(self) -> bool:
        """Read the files again if they have changed; whether something new is in use. Looks once a second at most."""
        if not self._changes.have_changed():
            return False
        try:
            files = self._read()
            if files == self._tried:
                return False
            self._tried = files
            newest = self._context_of(files)
        except (OSError, ValueError) as error:
            self.num_refused += 1
            _log.error("the TLS certificate stays as it was: %s cannot be used: %s", self._certificate, error)
            return False
        self._newest, self._used = newest, files
        _log.info("a new TLS certificate is in use: %s", self._certificate)
        return True

    def pair(self) -> tuple[bytes, bytes]:
        """Key and certificate in use as PEM, as gRPC wants them."""
        used = self._used
        return used.key, used.certificate

    def client_authorities(self) -> bytes | None:
        """The authorities of clients as PEM; None: no certificate is asked of them."""
        return self._used.client_ca

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called by OpenSSL at the start of each handshake. A whole context changes hands, so none is ever half new."""
        connection.context = self._newest

    def _read(self) -> _Files:
        client_ca = None if self._client_ca is None else self._client_ca.read_bytes()
        return _Files(self._key.read_bytes(), self._certificate.read_bytes(), client_ca)

    def _context_of(self, files: _Files) -> ssl.SSLContext:
        """A context of what was read. OpenSSL takes files only, so they are read once more to be sure that it saw the same."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        if files.client_ca is not None:
            context.load_verify_locations(cadata=files.client_ca.decode())
            context.verify_mode = ssl.CERT_REQUIRED
            context.num_tickets = 0  # a client must not come back by a ticket when its authority has been withdrawn
            context.options |= ssl.OP_NO_TICKET
        if self._read() != files:
            self._tried = None
            raise ValueError("it was written while it was read; it is read again")
        return context


def _no_password() -> str:
    """Without this, OpenSSL asks at the terminal."""
    raise ValueError("the private key has a password; store it without one, readable by the server alone")
