"""The admin listener: metrics, what is loaded, what one request was answered, loading and unloading, flushing. Needs the bearer
token (metrics as configured); a browser gives it as the password."""

import asyncio
import re
from typing import Any

import orjson

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.metrics import MetricSet, encoded
from clipdrift_serving.access.authorise import Authorise, authoriser
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.answered import FindAnswers, answers_told, no_answers
from clipdrift_serving.dataplane.description import index
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.recording.recorder import Recorder
from clipdrift_serving.recording.spool import Spool
from clipdrift_serving.rest.admin_access import REQUESTS, refusal_of
from clipdrift_serving.rest.errors import error_body
from clipdrift_serving.rest.http import Reply, Request, Response, failed, wrong_method

_MODEL_ACTION = re.compile(r"/v2/repository/models/([A-Za-z0-9_.-]{1,64})/(load|unload)")
_REQUEST = re.compile(REQUESTS + r"(?P<model>[A-Za-z0-9_.-]{1,64})/(?P<id>.{1,512})", re.DOTALL)
_METHODS = {"/metrics": "GET", "/v1/models": "GET", "/v2/repository/index": "POST", "/v1/recording/flush": "POST"}
_PATHS = (
    f"there are {', '.join(_METHODS)}, {REQUESTS}{{model}}/{{request id}} and /v2/repository/models/{{name}}/load or /unload"
)
_FLUSH_SECONDS = 30.0


class AdminApp:
    """Answers what comes in on the admin listener; an `App` of rest.http."""

    def __init__(
        self,
        config: ServingConfig,
        plane: DataPlane,
        recorder: Recorder,
        spool: Spool,
        metrics: MetricSet,
        authorise: Authorise | None = None,
        answers: FindAnswers = no_answers,
    ) -> None:
        self._config = config
        self._authorise = authorise or authoriser(config.admin_token, None)
        self._plane = plane
        self._recorder = recorder
        self._spool = spool
        self._metrics = metrics
        self._answers = answers

    def __call__(self, request: Request, reply: Reply) -> None:
        try:
            self._answer(request, reply)
        except Exception as error:  # noqa: BLE001  the boundary: it is answered, and logged where it is ours
            reply(failed(error))

    def _answer(self, request: Request, reply: Reply) -> None:
        path, method = request.path, request.method
        refusal = refusal_of(request, self._authorise, self._config)
        if refusal is not None:
            reply(refusal)
            return
        action = _MODEL_ACTION.fullmatch(path)
        wanted = _METHODS.get(path, "POST" if action is not None else "GET" if path.startswith(REQUESTS) else None)
        if wanted is None:
            raise RequestError("not_found", f"there is nothing at {path[:200]}; {_PATHS}")
        if method != wanted and (wanted, method) != ("GET", "HEAD"):
            raise wrong_method(request, "GET, HEAD" if wanted == "GET" else wanted)
        if path == "/v1/recording/flush":
            self._flush(reply)
        elif action is not None:
            reply(self._change(*action.groups()))
        else:
            reply(self._told(request))

    def _told(self, request: Request) -> Response:
        path = request.path
        if path == "/metrics":
            text, kind = encoded([self._metrics.registry], request.headers.get(b"accept", b"").decode("latin-1"))
            return Response(200, text, ((b"content-type", kind.encode()),))
        if path.startswith(REQUESTS):
            match = _REQUEST.fullmatch(path)
            if match is None:
                raise RequestError("not_found", f"there is nothing at {path[:200]}; {_PATHS}")
            return Response(200, orjson.dumps(answers_told(self._plane.repository, self._answers, match["model"], match["id"])))
        if path == "/v1/models":
            return Response(200, orjson.dumps(self._models()))
        return Response(200, orjson.dumps(index(self._plane.repository)))

    def _flush(self, reply: Reply) -> None:
        """Answered when the bus has everything; the loop goes on meanwhile."""
        self._recorder.flush()
        draining = asyncio.get_running_loop().run_in_executor(None, self._spool.drain, _FLUSH_SECONDS)

        def on_end(ended: "asyncio.Future[None]") -> None:
            error = ended.exception()
            if isinstance(error, RetryableError):
                reply(Response(503, error_body(str(error))))
            else:
                reply(failed(error) if isinstance(error, Exception) else Response(200, b'{"flushed":true}'))

        draining.add_done_callback(on_end)

    def _models(self) -> dict[str, Any]:
        return {name: self._describe(name) for name in self._plane.repository.names()}

    def _describe(self, name: str) -> dict[str, Any]:
        serving, live = self._plane.repository.get(name), self._plane.live.of(name)
        return {
            "generation": serving.generation,
            "version": serving.champion.version,
            "previous": serving.previous.version if serving.previous else None,
            "canary": serving.canary.version if serving.canary else None,
            "requests": live.num_requests,
            "rows": live.num_rows,
            "labels": live.num_labels,
            "correct": live.num_correct,
            "live_accuracy": live.accuracy,
        }

    def _change(self, model: str, action: str) -> Response:
        if action == "unload":
            self._plane.repository.unload(model)
        elif self._plane.repository.load(model) == "refused":
            raise RequestError("bad_input", f"the deployment of {model!r} cannot be loaded; the reason is in the server's log")
        return Response(200, b"{}")
