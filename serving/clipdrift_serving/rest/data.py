"""The data listener: the Open Inference Protocol v2, and feedback."""

import re
import time
from collections.abc import Mapping
from typing import Any

import orjson

from clipdrift_contract import metrics as names
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.model import LoadedModel
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.rest.codec import decode_feedback, decode_infer, encode_answer
from clipdrift_serving.rest.errors import STATUS_OF
from clipdrift_serving.rest.http import JSON, Receive, Response, Scope, Send, guarded, read_body, send, wrong_method

_MODEL_PATH = re.compile(
    r"/v2/models/(?P<model>[A-Za-z0-9_.-]{1,64})(?:/versions/(?P<version>[A-Za-z0-9_.-]{1,64}))?(?P<rest>/.*)?"
)
_PATHS = "there are /v2, /v2/health/{live,ready}, /v2/models/{name}[/versions/{version}][/ready], .../infer and .../feedback"
_SERVER = {"name": "clipdrift", "version": "0.1.0", "extensions": ["binary_tensor_data", "clipdrift_feedback"]}


class DataApp:
    """A raw ASGI application."""

    def __init__(self, config: ServingConfig, plane: DataPlane, metrics: MetricSet) -> None:
        self._config = config
        self._plane = plane
        self._requests = metrics.counter(names.SERVING_REQUESTS)
        self._latency = metrics.histogram(names.SERVING_LATENCY)
        self.num_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send_message: Send) -> None:
        if scope["type"] != "http":
            return
        self.num_in_flight += 1
        try:
            await send(await guarded(lambda: self._answer(scope, receive)), send_message)
        finally:
            self.num_in_flight -= 1

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        path, method = scope["path"], scope["method"]
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            return self._server(scope)
        model, version, rest = match["model"], match["version"], match["rest"] or ""
        if method == "POST" and rest == "/infer":
            return await self._infer(model, version, scope, receive)
        if method == "POST" and rest == "/feedback":
            return await self._feedback(model, scope, receive)
        if rest in ("/infer", "/feedback"):
            raise wrong_method(scope, "POST")
        if rest not in ("", "/ready"):
            raise RequestError("not_found", f"there is nothing at {path[:200]}; {_PATHS}")
        if method not in ("GET", "HEAD"):
            raise wrong_method(scope, "GET, HEAD")
        if rest == "":
            return Response(200, orjson.dumps(self._metadata(model, version)))
        self._plane.repository.route(model, version)
        return Response(200, orjson.dumps({"name": model, "ready": True}))

    def _server(self, scope: Scope) -> Response:
        path, method = scope["path"], scope["method"]
        if path not in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready"):
            raise RequestError("not_found", f"there is nothing at {path[:200]}; {_PATHS}")
        if method not in ("GET", "HEAD"):
            raise wrong_method(scope, "GET, HEAD")
        if path in ("/v2", "/v2/"):
            return Response(200, orjson.dumps(_SERVER))
        if path == "/v2/health/live":
            return Response(200, orjson.dumps({"live": True}))
        is_ready = self._plane.repository.is_ready()
        return Response(200 if is_ready else 503, orjson.dumps({"ready": is_ready}))

    def _metadata(self, name: str, version: str | None) -> dict[str, Any]:
        serving, model, _ = self._plane.repository.route(name, version)
        return {
            "name": name,
            "versions": [loaded.version for loaded in serving.versions()],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in model.inputs.values()],
            "outputs": [{"name": key, "datatype": kind, "shape": shape} for key, (kind, shape) in model.outputs.items()],
            "parameters": {"generation": serving.generation, **_classes(model)},
        }

    async def _infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Response:
        started = time.perf_counter()
        code = "500"
        try:
            self._plane.repository.get(model)
            headers: Mapping[bytes, bytes] = dict(scope["headers"])
            body = await read_body(scope, receive, self._config.max_body_bytes)
            length = headers.get(b"inference-header-content-length")
            request, tensors = decode_infer(body, None if length is None else length.decode("latin-1"))
            wanted = [one.name for one in request.outputs]
            answer = self._plane.infer(model, version, tensors, request.parameters, wanted)
            encoded, json_bytes = encode_answer(request, answer)
            code = "ok"
        except RequestError as error:
            code = str(STATUS_OF[error.fault])
            if error.fault == "unknown_model":
                model = "(unknown)"  # a label must not grow with what clients make up
            raise
        finally:
            self._requests.labels(model, code).inc()
            self._latency.labels(model).observe(time.perf_counter() - started)
        if json_bytes is None:
            return Response(200, encoded)
        binary = (
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", str(json_bytes).encode()),
        )
        return Response(200, encoded, binary)

    async def _feedback(self, model: str, scope: Scope, receive: Receive) -> Response:
        request = decode_feedback(await read_body(scope, receive, self._config.max_body_bytes))
        outcome = self._plane.feedback(model, request.receipts, request.labels, request.label_times_ms)
        return Response(200, orjson.dumps({"accepted": outcome.num_accepted, "rejected": outcome.rejected}), (JSON,))


def _classes(model: LoadedModel) -> dict[str, Any]:
    if model.profile is None:
        return {}
    return {"classes": list(model.profile.classes), "slices": list(model.profile.slice_names)}
