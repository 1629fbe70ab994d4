"""Whether the server's memory stays flat under load, and what open predictions cost. The last line is one JSON object.

`rss_growth_mib`: resident memory after 200,000 requests of mixed batch sizes minus that after 20,000 (recording, receipts and
metrics on). `label_table_bytes_per_prediction`: what remembering which receipts were counted costs at a million of them.
`label_table_...`: the same of the table on disk where callers give ids of their own, see bench/recording.py.
"""

import asyncio
import json
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "serving_peers"))
import numpy as np
from ours import NUM_FEATURES, serving, write_mlp
from recording import label_table

from clipdrift_serving.dataplane.redeemed import RedeemedReceipts

EARLY, ALL = 20_000, 200_000
NUM_CONNECTIONS = 16
BATCHES = (1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 300)
MIB = 1024 * 1024


def requests(random: np.random.Generator) -> list[bytes]:
    """Binary requests of each batch size, whole."""
    made = []
    for rows in BATCHES:
        values = random.normal(size=(rows, NUM_FEATURES)).astype("<f4").tobytes()
        one = {"name": "x", "shape": [rows, NUM_FEATURES], "datatype": "FP32", "parameters": {"binary_data_size": len(values)}}
        head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
        lengths = b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n" % (len(head), len(head) + len(values))
        made.append(b"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\n" + head + values)
    return made


async def load(port: int, bodies: list[bytes], num_requests: int) -> None:
    """So many requests over keep-alive connections, each answered with 200."""
    left = num_requests

    async def ask(first: int) -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = first
        while left > 0:
            left -= 1
            at += 1
            writer.write(bodies[at % len(bodies)])
            head = await reader.readuntil(b"\r\n\r\n")
            if head[9:12] != b"200":
                raise SystemExit(f"a request was answered with {head[:100]!r}")
            await reader.readexactly(int(head.rpartition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(ask(number) for number in range(NUM_CONNECTIONS)))


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def redeemed_table() -> float:
    """Bytes a prediction once a million have been labelled, by the growth of this process."""
    tracemalloc.start()
    table = RedeemedReceipts()
    for sequence in range(1_000_000):
        table.is_first("0123456789abcdef", sequence)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return grown / 1_000_000


def main() -> dict[str, object]:
    table = redeemed_table()
    with tempfile.TemporaryDirectory() as name:
        print("a million open predictions with the caller's own ids ...", flush=True)
        request_ids = label_table(Path(name))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mlp(folder / "mlp.onnx")
        with serving(folder, folder / "mlp.onnx", grpc_port=0) as server:
            bodies = requests(np.random.default_rng(0))
            started, at_rest = time.monotonic(), rss_mib(server.process.pid)
            asyncio.run(load(server.port, bodies, EARLY))
            early = rss_mib(server.process.pid)
            print(f"after {EARLY:7} requests: {early:6.1f} MiB (at rest {at_rest:.1f})", flush=True)
            for number in range(1, 10):
                asyncio.run(load(server.port, bodies, (ALL - EARLY) // 9))
                done = EARLY + number * (ALL - EARLY) // 9
                print(f"after {done:7} requests: {rss_mib(server.process.pid):6.1f} MiB", flush=True)
            late, peak = rss_mib(server.process.pid), peak_mib(server.process.pid)
            unrecorded = server.metric("clipdrift_serving_unrecorded_total")
            seconds = time.monotonic() - started
    return {
        "bench": "memory",
        "rss_growth_mib": round(late - early, 2),
        "rss_at_rest_mib": round(at_rest, 1),
        "rss_early_mib": round(early, 1),
        "rss_late_mib": round(late, 1),
        "rss_peak_mib": round(peak, 1),
        "num_requests": ALL,
        "num_unrecorded": unrecorded,
        "label_table_bytes_per_prediction": round(table, 3),
        **request_ids,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
