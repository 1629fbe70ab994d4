"""Opens a bus by its address, so that no component names an implementation."""

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from clipdrift_contract.bus.log import Bus
from clipdrift_contract.errors import ConfigError


def connect(url: str) -> Bus:
    """Open the bus at `url`: `sqlite:///FILE` or `kafka://host:port[,host:port]`.

    As SQLAlchemy has it, three slashes are followed by a relative path and four begin an absolute one. `?settings=FILE` behind
    a kafka address names a TOML file of kafka-python's own settings, so that no password stands in an address.

    Raises:
        ConfigError: The address is not understood, or the extra that it needs is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and len(parts.path) > 1:
        from clipdrift_contract.bus.sqlite import SqliteBus  # noqa: PLC0415  an embedded bus must not need a Kafka client

        return SqliteBus(Path(parts.path[1:]))
    if parts.scheme == "kafka" and parts.netloc:
        try:
            from clipdrift_contract.bus.kafka import KafkaBus  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError("a kafka:// bus needs the extra: pip install 'clipdrift[kafka]'") from error
        return KafkaBus(parts.netloc.split(","), settings=_settings(parts.query))
    raise ConfigError(f"bus address must be sqlite:///FILE or kafka://HOST:PORT, got {url!r}")


def _settings(query: str) -> dict[str, Any]:
    found = parse_qs(query, keep_blank_values=True)
    if not found:
        return {}
    if set(found) != {"settings"}:
        raise ConfigError(f"a kafka address may only be followed by ?settings=FILE, got {query!r}")
    path = Path(found["settings"][0])
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"the Kafka settings cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"the Kafka settings in {path} are not TOML: {error}") from error
