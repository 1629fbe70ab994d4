"""Which partition a key goes to: Kafka's default, exactly, so that both buses order alike."""

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """32-bit murmur2 hash, unsigned, as Kafka's Java client computes it.

    Source: org.apache.kafka.common.utils.Utils.murmur2 (seed 0x9747b28c, m 0x5bd1e995, r 24).

    Example:
        >>> murmur2(b"21") == 2 ** 32 - 973932308
        True
    """
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, num_partitions: int) -> int:
    """The partition, in 0..num_partitions-1, of a record with this key.

    Raises:
        ValueError: There are no partitions.
    """
    if num_partitions < 1:
        raise ValueError(f"num_partitions must be >= 1, got {num_partitions!r}")
    return (murmur2(key) & 0x7FFFFFFF) % num_partitions
