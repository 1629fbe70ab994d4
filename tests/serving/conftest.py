"""A service with one small real model; the builders are in toy_service, which is put on the path here."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy_service import Service, deploy, write_model


@pytest.fixture
def service(tmp_path: Path) -> Service:
    made = Service(event_time="request")
    assert made.repository.apply(deploy(write_model(tmp_path, "v1", 0.0))) == "done"
    return made
