"""Ports of this machine: which are free, and what to say when one is not."""

import socket
from errno import EADDRINUSE

from clipdrift_contract.errors import ConfigError


def free_port(host: str) -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def require_port(host: str, port: int, setting: str) -> None:
    """Check that `port` can be listened on at this moment.

    Raises:
        ConfigError: It cannot; the message names the `setting` that changes it.
    """
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a port that was just left is free
        try:
            probe.bind((host, port))
        except OSError as error:
            is_taken = error.errno == EADDRINUSE
            reason = "is taken (is another `clipdrift up` running?)" if is_taken else f"cannot be used: {error.strerror}"
            raise ConfigError(
                f"port {port} of {host} {reason}; end what listens there, or choose another with {setting}"
            ) from error
        except OverflowError as error:
            raise ConfigError(f"a port is a number from 1 to 65535, got {port}; change {setting}") from error


def url_of(host: str, port: int) -> str:
    """Where a listener on `host` is reached from this machine.

    Example:
        >>> url_of("0.0.0.0", 8080), url_of("::1", 8080)
        ('http://127.0.0.1:8080', 'http://[::1]:8080')
    """
    reached = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  names the wildcard
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
