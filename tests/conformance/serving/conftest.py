"""One real server with a toy model and one with every data type, for the protocol's own clients."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "serving"))
from echo_model import write_echo
from serving_process import Process, free_port, wait_until
from toy_service import deploy, write_model


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Serves `toy` (x, y FP32, carrier BYTES) and `echo` (one input and output of each type)."""
    folder = tmp_path_factory.mktemp("conformance")
    keys = folder / "keys.toml"
    made = Process(folder, grpc_port=free_port())
    made.grpc_port = made.config["grpc_port"]
    made.start()
    made.deploy(write_model(folder, "v1", 0.0), 1)
    made.events.publish(deploy(write_echo(folder), model="echo"))
    made.events.flush(5)
    wait_until(lambda: made.get("/v2/models/echo/ready")[0] == 200 and made.is_ready())
    assert not keys.exists()
    yield made
    made.close()
