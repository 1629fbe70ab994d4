"""The settings of docs/howto/serve-at-the-edge.md keep a whole server, with all that Clipdrift does, under 100 MB."""

import concurrent.futures
import http.client
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from ours import serving, write_mlp

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.system, pytest.mark.slow]
NUM_CLIENTS, NUM_REQUESTS = 4, 2500


def edge_settings() -> dict[str, object]:
    """The settings as the page shows them."""
    lines = (ROOT / "docs" / "howto" / "serve-at-the-edge.md").read_text().splitlines()
    return tomllib.loads("\n".join(line[4:] for line in lines if line.startswith("    ")).partition("[Service]")[0])["serving"]


def ask(port: int, seed: int) -> int:
    """Number of rows answered."""
    random = np.random.default_rng(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    num_rows = 0
    for _ in range(NUM_REQUESTS):
        rows = int(random.integers(1, 65))
        data = random.normal(size=rows * 32).round(4).tolist()
        body = json.dumps({"inputs": [{"name": "x", "shape": [rows, 32], "datatype": "FP32", "data": data}]})
        connection.request("POST", "/v2/models/mlp/infer", body)
        answer = connection.getresponse()
        assert len(json.loads(answer.read())["parameters"]["receipts"]) == rows
        num_rows += rows
    connection.close()
    return num_rows


def test_a_server_with_edge_settings_stays_under_100_mb_under_load(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    write_mlp(tmp_path / "mlp.onnx")
    with serving(tmp_path, tmp_path / "mlp.onnx", grpc_port=0, **edge_settings()) as server:
        with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
            num_rows = sum(pool.map(ask, [server.port] * NUM_CLIENTS, range(NUM_CLIENTS)))
        assert server.metric("clipdrift_serving_rows_total") == num_rows
        status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak_bytes = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(f"peak {peak_bytes / 1e6:.1f} MB after {num_rows} rows")
    assert peak_bytes < 100e6
