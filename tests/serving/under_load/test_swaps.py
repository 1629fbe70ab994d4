"""Swaps, canaries and corrupt files under load: no error, and each answer is the one of the version that it names."""

import time

import pytest
from serving_process import INPUTS, Process, wait_until
from toy_service import write_model, yes

from under_load.load import Load

pytestmark = [pytest.mark.system, pytest.mark.slow]
NUM_SWAPS, NUM_CANARIES = 100, 10
LEAST_PER_SECOND = 2_000
REFUSED = 'clipdrift_serving_swaps_total{model="toy",outcome="refused"}'


@pytest.fixture
def server(tmp_path):
    made = Process(tmp_path)
    made.start()
    yield made
    made.close()


def test_100_swaps_10_canaries_and_3_corrupt_files_cost_no_answer(server, tmp_path):
    biases = {f"v{number}": number * 0.25 for number in range(6)}
    served = {name: write_model(tmp_path, name, bias) for name, bias in biases.items()}
    server.deploy(served["v0"], 1)
    wait_until(server.is_ready)
    started, load = time.monotonic(), Load(server.port, {"inputs": INPUTS}).start()
    generation = 1

    def deploy(one, **others) -> None:
        nonlocal generation
        generation += 1
        server.deploy(one, generation, **others)
        wait_until(lambda: server.metric('clipdrift_serving_generation{model="toy"}') == generation)

    try:
        for number in range(NUM_SWAPS):
            deploy(served[f"v{(number + 1) % 4}"])
        for number in range(1, NUM_CANARIES + 1):
            deploy(served["v4"], canary=served["v5"], canary_weight=number / NUM_CANARIES)
            seen = len(load.answers)
            wait_until(lambda many=seen + 200: len(load.answers) >= many)
        for number, spoil in enumerate(
            (lambda path: path.write_bytes(path.read_bytes()[:50]), lambda path: path.unlink(), None)
        ):
            broken = write_model(tmp_path, f"broken{number}", 9.0)
            if spoil is None:
                (tmp_path / "broken2.onnx").write_bytes(b"another file")
            else:
                spoil(tmp_path / f"broken{number}.onnx")
            server.deploy(broken, generation + 1 + number)
            wait_until(lambda many=number + 1: server.metric(REFUSED) == many)
    finally:
        answers = load.stop()
    per_second = len(answers) / (time.monotonic() - started)
    assert {one.status for one in answers} == {200}
    assert load.num_cut_off == 0
    assert per_second >= LEAST_PER_SECOND, "the load was too small to show anything"
    for one in answers:
        assert one.value == pytest.approx(yes(0.5, 0.25, 1.0, biases[one.version]), rel=1e-5)
        assert (one.role == "canary") == (one.version == "v5")
    assert {one.version for one in answers} == set(biases)
    assert server.metric('clipdrift_serving_deployment_refused{model="toy"}') == 1
    assert server.infer()[1]["model_version"] in ("v4", "v5")
