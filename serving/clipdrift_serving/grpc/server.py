"""The synchronous gRPC server: a few threads read and write messages; the event loop's thread answers."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import grpc
import msgspec
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from clipdrift_contract.access.keys import AccessScope
from clipdrift_serving.access.authorise import Authorise, authoriser
from clipdrift_serving.dataplane import description
from clipdrift_serving.dataplane.asked import Answer, Asked
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.grpc.codec import decode_parameters, decode_tensors, encode_answer
from clipdrift_serving.grpc.errors import STATUS_OF
from clipdrift_serving.grpc.protocol.messages import SERVICE, message

_SCOPES: dict[str, AccessScope] = {
    "ModelInfer": "infer",
    "RepositoryIndex": "admin",
    "RepositoryModelLoad": "admin",
    "RepositoryModelUnload": "admin",
}
_LONGEST_SECONDS = 3600.0
_OPEN = frozenset({"ServerLive", "ServerReady"})  # health must be seen without a key


class GrpcConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The gRPC listener."""

    host: str = "127.0.0.1"
    """Address."""
    port: int = 0
    """Port; 0: any free one."""
    num_threads: int = 4
    """Threads that read and write messages."""
    max_message_bytes: int = 4 * 1024 * 1024
    """Larger messages are refused with RESOURCE_EXHAUSTED."""
    max_in_flight: int = 2048
    """Calls that may wait for their answer; beyond, one is refused with RESOURCE_EXHAUSTED."""
    max_rows: int = 4096
    """Most rows in one request, as the configuration of a model says it."""


class GrpcServer:
    """Serves the protocol over one port.

    Args:
        loop: Runs the data plane; what is asked is handed to its thread, so that it is batched with what came over HTTP.
        authorise: None: only calls that need no `admin` are answered, for anybody.
        credentials: TLS; None: plain text.

    Raises:
        OSError: The port cannot be had.
    """

    def __init__(
        self,
        config: GrpcConfig,
        plane: DataPlane,
        loop: asyncio.AbstractEventLoop,
        authorise: Authorise | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._config = config
        self._plane = plane
        self._loop = loop
        self._authorise = authorise or authoriser("", None)
        self._server = grpc.server(
            ThreadPoolExecutor(config.num_threads, "grpc"),
            maximum_concurrent_rpcs=config.max_in_flight,
            options=[("grpc.max_receive_message_length", config.max_message_bytes), ("grpc.so_reuseport", 0)],
        )
        answers: dict[str, Callable[[Any], dict[str, Any]]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": plane.repository.is_ready()},
            "ServerMetadata": lambda _: description.server_metadata(),
            "ModelReady": self._model_ready,
            "ModelMetadata": lambda asked: description.model_metadata(plane.repository, asked.name, asked.version),
            "ModelConfig": self._model_config,
            "ModelStatistics": lambda asked: description.statistics(plane.repository, plane.usage, asked.name, asked.version),
            "RepositoryIndex": lambda asked: {"models": description.index(plane.repository, is_ready_only=asked.ready)},
            "RepositoryModelUnload": self._unload,
        }
        handlers = {name: self._handler(name, self._told(name, answer)) for name, answer in answers.items()}
        handlers["ModelInfer"] = self._handler("ModelInfer", self._infer)
        handlers["RepositoryModelLoad"] = self._handler("RepositoryModelLoad", self._load)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = f"{config.host}:{config.port}"
        try:
            given = (
                self._server.add_secure_port(address, credentials) if credentials else self._server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: {error}") from error
        self.port: int = given

    def start(self) -> None:
        """Take calls from now on."""
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Take no new call, let those that have begun end within the time, and wait for that. Not on the loop's thread."""
        self._server.stop(grace_seconds).wait()

    def _handler(self, name: str, answer: Callable[[Any, bytes, Any], bytes]) -> Any:
        """Reads the message itself: one that cannot be read is the client's mistake, which grpc would call INTERNAL."""
        kind = message(f"{name}Request")

        def handle(body: bytes, context: Any) -> bytes:
            try:
                _seconds_left(context)
                request = kind.FromString(body)
                if name not in _OPEN:
                    model = getattr(request, "model_name", None) or getattr(request, "name", None) or None
                    headers = {key.encode(): _as_bytes(value) for key, value in context.invocation_metadata()}
                    self._on_loop(context, lambda: self._authorise(headers, _SCOPES.get(name, "read"), model))
                return answer(request, body, context)
            except RequestError as error:
                context.abort(STATUS_OF[error.fault], str(error))
            except DecodeError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is not a {name}Request: {error}")
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(handle)

    def _on_loop(self, context: Any, call: Callable[[], Any]) -> Any:
        """What `call` returns, on the loop's thread.

        Raises:
            RequestError: As `call` raised it, or the caller's time is over.
        """
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001  carried to the thread that waits
                future.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return _waited(future, context)

    def _told(self, name: str, answer: Callable[[Any], dict[str, Any]]) -> Callable[[Any, bytes, Any], bytes]:
        kind = message(f"{name}Response")

        def told(request: Any, _: bytes, context: Any) -> bytes:
            values = self._on_loop(context, lambda: answer(request))
            encoded: bytes = ParseDict(values, kind()).SerializeToString()
            return encoded

        return told

    def _model_ready(self, asked: Any) -> dict[str, Any]:
        try:
            description.model_metadata(self._plane.repository, asked.name, asked.version)
        except RequestError:
            return {"ready": False}
        return {"ready": True}

    def _model_config(self, asked: Any) -> dict[str, Any]:
        repository, max_rows = self._plane.repository, self._config.max_rows
        return {"config": description.model_config(repository, asked.name, asked.version, max_rows=max_rows)}

    def _unload(self, asked: Any) -> dict[str, Any]:
        self._plane.repository.unload(asked.model_name)
        return {}

    def _load(self, request: Any, _: bytes, __: Any) -> bytes:
        """In this thread: loading takes long, and the loop must go on."""
        name = request.model_name
        if self._plane.repository.load(name) == "refused":
            raise RequestError("bad_input", f"the deployment of {name!r} cannot be loaded; the reason is in the server's log")
        return b""

    def _infer(self, request: Any, body: bytes, context: Any) -> bytes:
        parameters = decode_parameters(request.parameters)
        future: Future[Answer | RequestError] = Future()
        asked = Asked(
            request.model_name,
            decode_tensors(request),
            future.set_result,
            version=request.model_version or None,
            parameters=parameters,
            wanted_outputs=[one.name for one in request.outputs],
            request_id=request.id,
            key=str(parameters.get("key") or ""),
            num_bytes=len(body),
        )

        def submit() -> None:
            if context.is_active():  # else nobody waits any more: not run, not recorded
                self._plane.submit(asked)
            else:
                future.set_result(RequestError("too_slow", "the call was over before it was run"))

        self._loop.call_soon_threadsafe(submit)
        answer = _waited(future, context)
        if isinstance(answer, RequestError):
            raise answer
        return encode_answer(request, answer)


def _seconds_left(context: Any) -> float:
    left: float | None = context.time_remaining()  # without a deadline None, or centuries: it differs by version
    if left is None:
        return _LONGEST_SECONDS
    if left <= 0:
        raise RequestError("too_slow", "the call's deadline was over before it was run")
    return left


def _waited(future: Future[Any], context: Any) -> Any:
    try:
        return future.result(min(_seconds_left(context), _LONGEST_SECONDS))
    except FutureTimeoutError as error:
        raise RequestError("too_slow", "the call's deadline is over") from error


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
