"""From a latency in Prometheus to the request behind it: a real serving process, and a real Prometheus that scrapes it."""

import base64
import json
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
import serving_process
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from serving_process import INPUTS, TOKEN, Process, free_port, wait_until
from toy_service import write_model

from clipdrift_contract.metrics import OPENMETRICS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
SEVERAL = (
    "import json, pathlib, sys; from clipdrift_serving.config import ServingConfig;"
    "from clipdrift_serving.operations.supervisor import supervise;"
    "given = json.loads(sys.argv[1]); given['spool_dir'] = pathlib.Path(given['spool_dir']);"
    "supervise(ServingConfig(**given), 2)"
)


@pytest.fixture(params=["one process", "two workers"])
def server(request, tmp_path, monkeypatch):
    if request.param == "two workers":
        monkeypatch.setattr(serving_process, "_START", SEVERAL)
    made = Process(tmp_path)
    made.start()
    made.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(lambda: {made.infer()[0] for _ in range(20)} == {200}, 60)
    yield made
    made.close()


def ask(server, request_id, headers=None):
    """The answer to a request that has an id of its own."""
    body = json.dumps({"id": request_id, "inputs": INPUTS}).encode()
    status, answer = server.get("/v2/models/toy/infer", "POST", body, headers=headers)
    assert status == 200
    return json.loads(answer)


def exemplars(server):
    """Labels of all exemplars in a scrape."""
    text = server.get("/metrics", port=server.admin_port, headers={"Accept": OPENMETRICS})[1].decode()
    return [one.exemplar.labels for family in text_string_to_metric_families(text) for one in family.samples if one.exemplar]


def look(server, request, headers):
    return server.get(f"/v1/requests/{request}", port=server.admin_port, headers=headers)


@pytest.mark.system
def test_an_exemplar_leads_to_what_the_request_was_answered(server):
    answer = ask(server, "order-17", TRACEPARENT)
    (exemplar,) = exemplars(server)
    assert exemplar == {"request": "toy/order-17", "trace_id": TRACE}
    status, body = look(server, exemplar["request"], {"Authorization": f"Bearer {TOKEN}"})
    assert status == 200
    told = json.loads(body)
    assert (told["model"], told["request_id"]) == ("toy", "order-17")
    (one,) = told["answers"]
    assert (one["version"], one["role"], one["generation"]) == ("v1", "champion", 1)
    (row,) = one["rows"]
    assert (row["slice"], row["predicted"]) == ("UA", "yes")
    assert row["scores"]["yes"] == pytest.approx(answer["outputs"][0]["data"][1], abs=2e-5)


@pytest.mark.system
def test_a_browser_gives_the_token_as_a_password_and_may_only_look(server):
    ask(server, "order-18")
    basic = {"Authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}
    assert look(server, "toy/order-18", basic)[0] == 200
    assert look(server, "toy/never", basic)[0] == 404
    assert look(server, "toy", basic)[0] == 404
    wrong = {"Authorization": "Basic " + base64.b64encode(b"anybody:guess").decode()}
    for headers in ({}, wrong, {"Authorization": "Basic !"}):
        answer = httpx.get(f"http://127.0.0.1:{server.admin_port}/v1/requests/toy/order-18", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    unload = "/v2/repository/models/toy/unload"
    assert server.get(unload, "POST", b"", server.admin_port, basic)[0] == 401
    assert server.infer()[0] == 200


@pytest.mark.system
def test_who_asks_for_the_text_format_gets_it_without_requests(server):
    ask(server, "order-19")
    status, text = server.get("/metrics", port=server.admin_port)
    assert status == 200
    assert b"order-19" not in text
    assert b"# EOF" not in text


@pytest.mark.prometheus
@pytest.mark.parametrize("server", ["one process"], indirect=True)
def test_prometheus_keeps_the_exemplar_and_gives_it_to_grafana(server, tmp_path):
    if not shutil.which("prometheus"):
        pytest.skip("needs Debian's prometheus")
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: serving, static_configs: [{{targets: ['127.0.0.1:{server.admin_port}']}}]}}]\n"
    )
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
    ]  # fmt: skip
    with Path(tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as prometheus:
        try:
            found: list[str] = []

            def is_kept() -> bool:
                ask(server, "order-20", TRACEPARENT)
                found[:] = kept_by(port)
                return bool(found)

            wait_until(is_kept, 30)
        finally:
            prometheus.send_signal(signal.SIGTERM)
            prometheus.wait(20)
    assert set(found) == {"toy/order-20"}


def kept_by(port):
    """Requests that Prometheus names to the panel's query, as Grafana asks."""
    query = 'histogram_quantile(0.99, sum by (le) (rate(clipdrift_serving_request_duration_seconds_bucket{model="toy"}[1m])))'
    try:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/api/v1/query_exemplars",
            params={"query": query, "start": "1", "end": "99999999999"}, timeout=5,
        )  # fmt: skip
    except httpx.HTTPError:
        return []
    series = answer.json()["data"] if answer.status_code == 200 else []
    return [one["labels"]["request"] for of_it in series for one in of_it["exemplars"]]
