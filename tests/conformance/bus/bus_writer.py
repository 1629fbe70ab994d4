"""Writes numbered records, in batches, until it is killed; prints the number of the last record that a flush acknowledged."""

import itertools
import sys
import zlib

from bus_places import open_bus

_BATCH = 200
_PADDING = b"x" * 200


def value_of(number: int) -> bytes:
    """Carries its own checksum, so that half a record would show."""
    body = b"%d " % number + _PADDING
    return b"%08x %s" % (zlib.crc32(body), body)


def number_in(value: bytes) -> int:
    checksum, body = value.split(b" ", 1)
    assert int(checksum, 16) == zlib.crc32(body), "a record is torn"
    return int(body.split(b" ", 1)[0])


def main(address: str, topic: str) -> None:
    publisher = open_bus(address).publisher()
    for number in itertools.count():
        publisher.publish(topic, b"one key", {}, value_of(number), timestamp_ms=number)
        if number % _BATCH == _BATCH - 1:
            publisher.flush(30.0)
            print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
