"""Requests a second, CPU and latency of the server beside its peers, interleaved in one run. The last line is one JSON object.

The server has one core, the load generator (wrk; h2load for gRPC) the other. Ours runs as it is sold: recording, receipts,
metrics and checks are on, and whatever it did not record fails the bench. `--quick`: two rounds. `--split`: where a request's
time goes.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parent / "serving_peers"))
import numpy as np
import onnxruntime
from ours import NUM_FEATURES, Server, free_port, serving, wait_for, write_mlp

PEERS = Path(__file__).parent / "serving_peers"
SERVER_CORE, CLIENT_CORE = 1, 0
ROUNDS = 2 if "--quick" in sys.argv else 5
WARM_SECONDS, WINDOW_SECONDS = 1, 2
NOISE_CORES = 0.1  # CPU that others used in a window, beyond which it is said


class System(NamedTuple):
    """A server under test."""

    name: str
    url: str
    pid: int


class Window(NamedTuple):
    """What was measured in one window of load."""

    requests_per_second: float
    cpu_us: float  # of the server's process, a request
    p50_ms: float
    p99_ms: float
    noise_cores: float


class Load(NamedTuple):
    """A request that is sent over and over, and the answer that must come."""

    name: str
    num_connections: int
    body: bytes
    header_length: int | None
    rows: np.ndarray


def loads(random: np.random.Generator) -> list[Load]:
    one = random.normal(size=(1, NUM_FEATURES)).astype("f4").round(4)
    many = random.normal(size=(32, NUM_FEATURES)).astype("f4")
    json_body = json.dumps({"inputs": [{"name": "x", "shape": [1, NUM_FEATURES], "datatype": "FP32", "data": one[0].tolist()}]})
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "shape": [32, NUM_FEATURES], "datatype": "FP32", "parameters": {"binary_data_size": many.nbytes}}
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    return [
        Load("json1_c64", 64, json_body.encode(), None, one),
        Load("json1_c16", 16, json_body.encode(), None, one),
        Load("bin32_c64", 64, head + many.tobytes(), len(head), many),
    ]


def check(system: System, load: Load, session: onnxruntime.InferenceSession) -> None:
    """The system's answer is the runtime's own."""
    headers = {} if load.header_length is None else {"Inference-Header-Content-Length": str(load.header_length)}
    request = urllib.request.Request(system.url, load.body, {**headers, "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        length = answer.headers.get("inference-header-content-length")
        body = answer.read()
    if length is None:
        got = np.reshape(json.loads(body)["outputs"][0]["data"], (-1, 2))
    else:
        got = np.frombuffer(body, "<f4", offset=int(length)).reshape(-1, 2)
    np.testing.assert_allclose(got, session.run(None, {"x": load.rows})[0], rtol=1e-4, atol=1e-6)


def measure(system: System, load: Load, folder: Path) -> Window:
    """One window of wrk on the other core."""
    script = folder / f"{load.name}.lua"
    if not script.exists():
        body = "".join(f"\\{byte:03d}" for byte in load.body)
        length = (
            "" if load.header_length is None else f'wrk.headers["Inference-Header-Content-Length"] = "{load.header_length}"\n'
        )
        script.write_text(
            f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n{length}wrk.body = "{body}"\n'
            "done = function(s, l, r) io.write(string.format('%d %d %d %d %d\\n', s.requests, s.duration,"
            " l:percentile(50), l:percentile(99), s.errors.status + s.errors.read + s.errors.write + s.errors.timeout)) end\n"
        )
    wrk = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{load.num_connections}", "-s", str(script), system.url]
    subprocess.run([*wrk, f"-d{WARM_SECONDS}s"], capture_output=True, check=True)
    cpu, busy, own = cpu_seconds(system.pid), busy_seconds(), os.times().children_user + os.times().children_system
    started = time.monotonic()
    output = subprocess.run([*wrk, f"-d{WINDOW_SECONDS}s"], capture_output=True, check=True, text=True).stdout
    lasted = time.monotonic() - started
    used = cpu_seconds(system.pid) - cpu
    client = os.times().children_user + os.times().children_system - own
    noise = max(0.0, (busy_seconds() - busy - used - client) / lasted)
    num_requests, duration_us, p50_us, p99_us, num_errors = map(int, output.strip().splitlines()[-1].split())
    if num_errors:
        raise SystemExit(f"{system.name} {load.name}: {num_errors} errors")
    return Window(num_requests / duration_us * 1e6, used / num_requests * 1e6, p50_us / 1000, p99_us / 1000, noise)


def measure_grpc(server: Server, rows: np.ndarray, session: onnxruntime.InferenceSession, folder: Path) -> Window | None:
    """h2load over the same model, its answer checked before; None where it is not installed."""
    if shutil.which("h2load") is None:
        return None
    import grpc  # noqa: PLC0415
    from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: PLC0415

    request = service_pb2.ModelInferRequest(model_name="mlp")
    request.inputs.add(name="x", datatype="FP32", shape=list(rows.shape))
    request.raw_input_contents.append(rows.tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
    got = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(-1, 2)
    np.testing.assert_allclose(got, session.run(None, {"x": rows})[0], rtol=1e-4, atol=1e-6)
    message = request.SerializeToString()
    (folder / "grpc.bin").write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    pid = server.process.pid
    cpu, num_rows, started = cpu_seconds(pid), server.metric("clipdrift_serving_rows_total"), time.monotonic()
    output = subprocess.run(
        ["taskset", "-c", str(CLIENT_CORE), "h2load", "-t1", "-c16", f"-D{WINDOW_SECONDS}", "--warm-up-time=1",
         "-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(folder / "grpc.bin"),
         f"http://127.0.0.1:{server.grpc_port}/inference.GRPCInferenceService/ModelInfer"],
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    seconds, used = time.monotonic() - started, cpu_seconds(pid) - cpu
    lines = {line.partition(" ")[0]: line for line in output.splitlines() if line.startswith(("finished", "requests:"))}
    counts = {word: int(number) for number, word in (part.split()[:2] for part in lines["requests:"][10:].split(", "))}
    num_rows = server.metric("clipdrift_serving_rows_total") - num_rows
    # a gRPC error is a 200 to h2load: whether all were answered, the server's own count of rows tells
    if counts["failed"] + counts["errored"] + counts["timeout"] or num_rows < counts["succeeded"] * len(rows):
        raise SystemExit(f"gRPC: {lines['requests:']}; the server predicted {num_rows:.0f} rows")
    per_second = float(lines["finished"].split(", ")[1].split()[0])
    return Window(per_second, used / seconds / per_second * 1e6, 0.0, 0.0, 0.0)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """CPU time that anybody used on the two cores."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith((f"cpu{SERVER_CORE} ", f"cpu{CLIENT_CORE} ")):
            fields = list(map(int, line.split()[1:]))
            total += sum(fields[:3]) + sum(fields[5:7])
    return total / os.sysconf("SC_CLK_TCK")


def pin(pid: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {SERVER_CORE})


@contextlib.contextmanager
def peer(name: str, model: Path, body: bytes) -> Iterator[System]:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(PEERS / f"{name}.py"), str(model), str(port)])
    url = f"http://127.0.0.1:{port}/v2/models/mlp/infer"
    try:
        wait_for(url, process, body)
        pin(process.pid)
        yield System(name, url, process.pid)
    finally:
        process.kill()
        process.wait()


def raw_runs_per_second(session: onnxruntime.InferenceSession, rows: np.ndarray) -> float:
    """The physical limit: the session alone, one row."""
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(20_000):
            session.run(None, {"x": rows})
        best = max(best, 20_000 / (time.perf_counter() - started))
    return best


def main() -> dict[str, object]:
    subprocess.run([str(Path(__file__).parent / "system-packages.sh")], check=True)
    random = np.random.default_rng(1)
    cases = loads(random)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = folder / "mlp.onnx"
        write_mlp(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        server = stack.enter_context(serving(folder, model))
        pin(server.process.pid)
        ours = System("ours", f"http://127.0.0.1:{server.port}/v2/models/mlp/infer", server.process.pid)
        bare = stack.enter_context(peer("bare", model, cases[0].body))
        fast_api = stack.enter_context(peer("fast_api", model, cases[0].body))
        plan = [(system, case) for case in cases for system in (ours, bare, fast_api)]
        plan = [(system, case) for system, case in plan if not (system is fast_api and case.header_length is not None)]
        for system, case in plan:
            check(system, case, session)
        windows: dict[tuple[str, str], list[Window]] = {(system.name, case.name): [] for system, case in plan}
        grpc: list[Window] = []
        for number in range(ROUNDS):
            for system, case in plan:
                window = measure(system, case, folder)
                windows[(system.name, case.name)].append(window)
                noise = f"  (others used {window.noise_cores:.2f} core)" if window.noise_cores > NOISE_CORES else ""
                print(
                    f"round {number + 1}/{ROUNDS}  {case.name:10} {system.name:9} {window.requests_per_second:8.0f}/s"
                    f"  {window.cpu_us:6.1f} us  p50 {window.p50_ms:5.2f} ms  p99 {window.p99_ms:5.2f} ms{noise}",
                    flush=True,
                )
            found = measure_grpc(server, cases[0].rows, session, folder)
            if found is not None:
                grpc.append(found)
                rate = f"{found.requests_per_second:8.0f}/s  {found.cpu_us:6.1f} us"
                print(f"round {number + 1}/{ROUNDS}  grpc1_c16  ours      {rate}", flush=True)
        for system, case in plan:
            check(system, case, session)
        num_rows, num_recorded = server.metric("clipdrift_serving_rows_total"), server.num_recorded_rows()
        print(f"{num_rows:.0f} rows predicted, {num_recorded} on the bus", flush=True)
        if num_recorded != num_rows or server.metric("clipdrift_serving_unrecorded_total"):
            raise SystemExit(f"{num_rows - num_recorded:.0f} predictions were not recorded")
        raw = raw_runs_per_second(session, cases[0].rows)
    return summary(windows, grpc, raw)


def summary(windows: dict[tuple[str, str], list[Window]], grpc: list[Window], raw: float) -> dict[str, object]:
    def ratios(case: str, other: str) -> list[float]:
        pairs = zip(windows[("ours", case)], windows[(other, case)], strict=True)
        return [mine.requests_per_second / theirs.requests_per_second for mine, theirs in pairs]

    def cpu_ratios(case: str, other: str) -> list[float]:
        """What holds on a busy machine too: CPU of theirs over CPU of ours, a request."""
        return [
            theirs.cpu_us / mine.cpu_us for mine, theirs in zip(windows[("ours", case)], windows[(other, case)], strict=True)
        ]

    def told(name: str, values: list[float]) -> dict[str, object]:
        quarters = statistics.quantiles(values, n=4) if len(values) > 2 else [min(values), values[0], max(values)]
        return {
            name: round(statistics.median(values), 2),
            f"{name}_quartiles": [round(quarters[0], 2), round(quarters[2], 2)],
        }

    def median(key: tuple[str, str], field: str) -> float:
        return round(statistics.median(getattr(window, field) for window in windows[key]), 2)

    per_second = statistics.median(window.requests_per_second for window in windows[("ours", "json1_c64")])
    return {
        "bench": "serving",
        "rounds": ROUNDS,
        **told("json1_ratio_to_bare", ratios("json1_c64", "bare")),
        **told("json1_ratio_to_fastapi", ratios("json1_c64", "fast_api")),
        **told("bin32_ratio_to_bare", ratios("bin32_c64", "bare")),
        **told("json1_cpu_ratio_to_bare", cpu_ratios("json1_c64", "bare")),
        **told("json1_cpu_ratio_to_fastapi", cpu_ratios("json1_c64", "fast_api")),
        **told("bin32_cpu_ratio_to_bare", cpu_ratios("bin32_c64", "bare")),
        "p99_ms": median(("ours", "json1_c16"), "p99_ms"),
        "ratio_to_raw_run": round(per_second / raw, 3),
        "raw_runs_per_second": round(raw),
        "grpc_requests_per_second": round(statistics.median(one.requests_per_second for one in grpc)) if grpc else None,
        "systems": {
            f"{system} {case}": {
                field: median((system, case), field) for field in ("requests_per_second", "cpu_us", "p50_ms", "p99_ms")
            }
            for system, case in windows
        },
        "grpc_cpu_us": round(statistics.median(one.cpu_us for one in grpc), 2) if grpc else None,
        "num_windows": sum(map(len, windows.values())),
        "num_noisy_windows": sum(window.noise_cores > NOISE_CORES for found in windows.values() for window in found),
        "noisiest_window_cores": round(max(window.noise_cores for found in windows.values() for window in found), 2),
    }


if __name__ == "__main__":
    if "--split" in sys.argv:
        from split import split

        print(json.dumps({"bench": "serving", "split_us": split()}))
    else:
        print(json.dumps(main()))
