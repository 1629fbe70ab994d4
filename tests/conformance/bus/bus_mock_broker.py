"""librdkafka's mock broker as a process: prints its address, then obeys lines on stdin: `topic NAME PARTITIONS`, `down`, `up`.

It lives inside confluent-kafka's wheel and has no Python binding, hence ctypes.
"""

import ctypes
import sys
from pathlib import Path

import confluent_kafka

_ERROR_BYTES = 512
_REBALANCE_DELAY_MS = 100


def load() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka-*"), None) or next(folder.glob("librdkafka*"))))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, ctypes.c_int, ctypes.c_int]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, number]
    library.rd_kafka_mock_broker_set_down.argtypes = [pointer, number]
    library.rd_kafka_mock_broker_set_up.argtypes = [pointer, number]
    return library


def main() -> None:
    library = load()
    client = library.rd_kafka_new(0, library.rd_kafka_conf_new(), ctypes.create_string_buffer(_ERROR_BYTES), _ERROR_BYTES)
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, _REBALANCE_DELAY_MS)
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["topic", name, num_partitions]:
                library.rd_kafka_mock_topic_create(cluster, name.encode(), int(num_partitions), 1)
            case ["down"]:
                library.rd_kafka_mock_broker_set_down(cluster, 1)
            case ["up"]:
                library.rd_kafka_mock_broker_set_up(cluster, 1)
        print("done", flush=True)


if __name__ == "__main__":
    main()
