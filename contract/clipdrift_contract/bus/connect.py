"""Opens a bus by its address, so that no component names an implementation."""

from pathlib import Path
from urllib.parse import urlsplit

from clipdrift_contract.bus.log import Bus
from clipdrift_contract.errors import ConfigError


def connect(url: str) -> Bus:
    """Open the bus at `url`: `sqlite:///FILE` or `kafka://host:port[,host:port]`.

    As SQLAlchemy has it, three slashes are followed by a relative path and four begin an absolute one.

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
        return KafkaBus(parts.netloc.split(","))
    raise ConfigError(f"bus address must be sqlite:///FILE or kafka://HOST:PORT, got {url!r}")
