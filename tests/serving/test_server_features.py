"""The real process again: shadows, sticky canaries, labels by request id, in bulk and over the bus, keys, TLS."""

import hashlib
import json
import ssl
import subprocess
import urllib.request

import pytest
from serving_process import INPUTS, Process, wait_until
from toy_service import deploy, write_model

from clipdrift_contract.events import LABELS, PREDICTIONS, FeedbackBatch

pytestmark = pytest.mark.system


@pytest.fixture
def serve(tmp_path):
    made: list[Process] = []

    def start(**config) -> Process:
        server = Process(tmp_path, **config)
        server.start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.close()


def ask(server: Process, **more) -> dict:
    status, body = server.get("/v2/models/toy/infer", "POST", json.dumps({"inputs": INPUTS, **more}).encode())
    assert status == 200, body
    return json.loads(body)


def flushed(server: Process, topic):
    assert server.admin("/v1/recording/flush", "POST")[0] == 200
    return server.recorded(topic)


def test_a_shadow_predicts_the_same_rows_and_is_never_answered_with(serve, tmp_path):
    server = serve()
    server.deploy(write_model(tmp_path, "v1", 0.0), 1, shadow=write_model(tmp_path, "v2", 1.0))
    wait_until(server.is_ready)
    answers = [ask(server) for _ in range(50)]
    assert {answer["model_version"] for answer in answers} == {"v1"}

    def rows(role):
        server.admin("/v1/recording/flush", "POST")
        return {
            (event.version, int(n))
            for event in server.events_of(PREDICTIONS)
            if event.role == role
            for n in event.sequence.array()
        }

    wait_until(lambda: len(rows("shadow")) == 50)
    assert {number for _, number in rows("shadow")} == {number for _, number in rows("champion")}
    assert {version for version, _ in rows("shadow")} == {"v2"}


def test_requests_of_one_key_stay_with_one_version_and_those_of_the_canary_stay_there_when_it_grows(serve, tmp_path):
    server = serve()
    champion, canary = write_model(tmp_path, "v1", 0.0), write_model(tmp_path, "v2", 1.0)
    keys = [f"user-{number}" for number in range(200)]
    sent: list[set[str]] = []
    for generation, weight in enumerate((0.2, 0.5), start=1):
        server.deploy(champion, generation, canary=canary, canary_weight=weight)
        wait_until(lambda wanted=generation: server.is_ready() and server.metric("clipdrift_serving_generation{") == wanted)
        twice = [[ask(server, parameters={"key": key})["model_version"] for key in keys] for _ in range(2)]
        assert twice[0] == twice[1]
        sent.append({key for key, version in zip(keys, twice[0], strict=True) if version == "v2"})
        assert abs(len(sent[-1]) / len(keys) - weight) < 0.12
    assert sent[0] < sent[1]


def test_labels_come_by_request_id_in_a_list_in_a_file_and_over_the_bus(serve, tmp_path):
    server = serve()
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(server.is_ready)
    for number in range(6):
        ask(server, id=f"order-{number}")
    given = json.dumps({"request_ids": ["order-0", "order-1", "nobody"], "labels": ["yes", "no", "yes"]}).encode()
    status, body = server.get("/v2/models/toy/feedback", "POST", given)
    answer = json.loads(body)
    assert (status, answer["accepted"]) == (200, 2)
    assert [(one["index"], one["reason"]) for one in answer["rejected"]] == [(2, "unknown_request")]
    lines = b"request_id,label\norder-2,yes\norder-3,perhaps\n"
    status, body = server.get("/v2/models/toy/labels", "POST", lines, headers={"content-type": "text/csv"})
    answer = json.loads(body)
    assert (status, answer["accepted"], answer["num_rejected"]) == (200, 1, 1)
    assert (answer["rejected"][0]["line"], answer["rejected"][0]["reason"]) == (3, "bad_value")
    server.events.publish(FeedbackBatch(model="toy", request_ids=("order-4", "order-5"), labels=("yes", 0)))
    server.events.flush(5)
    wait_until(lambda: len(flushed(server, LABELS)) == 5)


def test_what_another_server_logged_is_recorded_and_its_labels_come_by_its_id(serve, tmp_path):
    server = serve()
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(server.is_ready)
    outputs = [{"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 0.75]}]
    for kind, body in (("request", {"inputs": INPUTS}), ("response", {"outputs": outputs, "model_name": "toy"})):
        headers = {"ce-id": "77", "ce-type": f"org.kubeflow.serving.inference.{kind}", "ce-inferenceservicename": "toy"}
        headers |= {"ce-specversion": "1.0", "content-type": "application/json"}
        status, answer = server.get("/v1/ingest", "POST", json.dumps(body).encode(), headers=headers)
        assert status == 200, answer
    assert json.loads(answer)["predictions"] == 1
    label = json.dumps({"request_ids": ["77"], "labels": ["yes"]}).encode()
    assert json.loads(server.get("/v2/models/toy/feedback", "POST", label)[1])["accepted"] == 1
    assert len(flushed(server, PREDICTIONS)) == len(flushed(server, LABELS)) == 1


def test_a_key_opens_what_its_scopes_say_and_nothing_else(serve, tmp_path):
    digest = hashlib.sha256(b"a-key-of-many-letters").hexdigest()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nname = "app"\nsha256 = "{digest}"\nscopes = ["infer"]\nmodels = ["toy"]\n')
    server = serve(api_keys_file=str(keys))
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(server.is_ready)
    body, good = json.dumps({"inputs": INPUTS}).encode(), {"Authorization": "Bearer a-key-of-many-letters"}
    assert server.get("/v2/models/toy/infer", "POST", body)[0] == 401
    assert server.get("/v2/models/toy/infer", "POST", body, headers={"X-API-Key": "wrong"})[0] == 401
    assert server.get("/v2/models/toy/infer", "POST", body, headers=good)[0] == 200
    assert server.get("/v2/models/toy/feedback", "POST", b"{}", headers=good)[0] == 403
    assert server.get("/v2/models/toy/infer", "POST", body, headers={"X-API-Key": "a-key-of-many-letters"})[0] == 200
    assert server.get("/v2/health/live")[0] == 200


def certificate(folder, name):
    key, chain = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, chain


def test_over_tls_it_answers_and_takes_a_renewed_certificate_without_a_restart(serve, tmp_path):
    key, chain = certificate(tmp_path, "first")
    server = Process(tmp_path, tls_certificate_file=str(chain), tls_key_file=str(key))
    server.start(wait=False)
    try:
        server.deploy(write_model(tmp_path, "v1", 0.0), 1)

        def peer() -> str:
            """Common name of the certificate that the server shows, once it answers."""
            context = ssl.create_default_context(cafile=str(chain))
            try:
                with urllib.request.urlopen(f"https://127.0.0.1:{server.port}/v2/health/live", context=context, timeout=5):
                    return ssl.get_server_certificate(("127.0.0.1", server.port))
            except OSError:
                return ""

        wait_until(lambda: peer() != "")
        first = peer()
        new_key, new_chain = certificate(tmp_path, "second")
        chain.write_text("half a certificate")  # a renewal that went wrong changes nothing
        wait_until(lambda: ssl.get_server_certificate(("127.0.0.1", server.port)) == first)
        new_key.replace(key)
        new_chain.replace(chain)
        wait_until(lambda: peer() not in ("", first))
    finally:
        server.close()


def test_a_deployment_of_another_model_does_not_disturb(serve, tmp_path):
    server = serve()
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    server.events.publish(deploy(write_model(tmp_path, "w1", 2.0), model="other"))
    server.events.flush(5)
    wait_until(lambda: server.is_ready() and server.get("/v2/models/other/ready")[0] == 200)
    assert ask(server)["model_version"] == "v1"
