"""The admin listener, asked as operators and strangers ask it."""

import json
from typing import Any

import msgspec
import pytest

from clipdrift_serving.rest.admin import AdminApp

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture
def ask(service):
    config = msgspec.structs.replace(service.config, admin_token="secret")
    app = AdminApp(config, service.plane, service.recorder, service.spool, service.metrics)

    def asked(method: str, path: str, headers: dict[str, str] = TOKEN) -> tuple[int, dict[str, str], Any]:
        status, got, body = service.request(method, path, headers=headers, app=app)
        return status, got, json.loads(body) if got["content-type"] == "application/json" else body

    return asked


@pytest.mark.parametrize(
    "given", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "secret"}]
)
def test_whoever_has_no_token_learns_nothing_but_the_metrics(ask, given):
    for path in ("/v1/models", "/v2/repository/models/toy/unload", "/nowhere"):
        assert ask("POST", path, given)[0] == 401
    assert ask("GET", "/metrics", given)[0] == 200


def test_a_wrong_method_is_told_which_one_is_right_and_a_wrong_address_which_there_are(ask):
    for method, path, allowed in (
        ("GET", "/v2/repository/index", "POST"), ("GET", "/v2/repository/models/toy/unload", "POST"),
        ("PUT", "/v1/models", "GET, HEAD"), ("DELETE", "/metrics", "GET, HEAD"),
    ):  # fmt: skip
        status, headers, answer = ask(method, path)
        assert (status, headers["allow"]) == (405, allowed), path
        assert f"got {method}" in answer["error"]
    status, _, answer = ask("GET", "/v2/repository")
    assert status == 404
    assert "/v2/repository/index" in answer["error"]


def test_a_model_that_is_unloaded_answers_503_until_it_is_loaded_again(ask, service):
    assert ask("POST", "/v2/repository/models/toy/unload")[0] == 200
    status, _, body = service.request("GET", "/v2/models/toy/ready")
    assert status == 503
    assert "load brings it back" in json.loads(body)["error"]
    assert ask("POST", "/v2/repository/models/toy/load")[0] == 200
    assert service.request("GET", "/v2/models/toy/ready")[0] == 200
    assert ask("POST", "/v2/repository/models/never/load")[0] == 404
