"""Labels over HTTP: in a list, in a file, and for predictions that another server logged."""

from time import monotonic

import msgspec
import orjson

from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.elsewhere import MadeElsewhere
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.labels import GivenLabels
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.rest.codec import decode_feedback
from clipdrift_serving.rest.http import Request, Response, plain_body
from clipdrift_serving.rest.ingest import Pairing, decode_logged
from clipdrift_serving.rest.uploads import label_of_classes, parse_labels

_MAX_TOLD = 1_000  # rejected labels whose reasons are told


class LabelRoutes:
    """`.../feedback`, `.../labels` and `/v1/ingest`."""

    def __init__(self, config: ServingConfig, plane: DataPlane) -> None:
        self._config = config
        self._plane = plane
        self.pairing = Pairing()

    def feedback(self, model: str, request: Request) -> Response:
        """Labels in one JSON object."""
        asked = decode_feedback(plain_body(request, self._config.max_body_bytes))
        if len(asked.labels) > self._config.max_upload_rows:
            most = self._config.max_upload_rows
            raise RequestError("too_large", f"at most {most} labels come at once, got {len(asked.labels)}; send them in parts")
        outcome = self._plane.feedback(
            model, GivenLabels(asked.labels, asked.receipts, asked.request_ids, asked.rows, asked.label_times_ms)
        )
        rejected = [msgspec.structs.asdict(one) for one in outcome.rejected]
        return Response(200, orjson.dumps({"accepted": outcome.num_accepted, "rejected": rejected}))

    def upload(self, model: str, request: Request) -> Response:
        """Labels as lines of CSV or NDJSON."""
        body = plain_body(request, self._config.max_body_bytes)
        kind = request.headers.get(b"content-type", b"").decode("latin-1")
        profile = self._plane.repository.head(model).profile
        read_label = label_of_classes(profile.classes if profile is not None else ())
        given = parse_labels(body, kind, self._config.max_upload_rows, read_label)
        outcome = self._plane.feedback(
            model, GivenLabels(given.labels, given.receipts, given.request_ids, given.rows, given.label_times_ms)
        )
        rejected = [one._asdict() for one in given.rejected]
        for one in outcome.rejected:
            rejected.append({"line": given.lines[one.index], "reason": one.reason, "message": one.message})
        rejected.sort(key=lambda one: one["line"])
        num_rejected = given.num_rejected + len(outcome.rejected)
        answer = {"accepted": outcome.num_accepted, "rejected": rejected[:_MAX_TOLD], "num_rejected": num_rejected}
        return Response(200, orjson.dumps(answer))

    def ingest(self, request: Request) -> Response:
        """CloudEvents of KServe's payload logger; a prediction is recorded when its request and its answer are both here."""
        if self._config.workers > 1:
            raise RequestError("bad_input", "logged predictions need workers = 1: a request and its answer come to any worker")
        body = plain_body(request, self._config.max_body_bytes)
        messages = decode_logged(request.headers, body, self._config.logged_forms)
        receipts: list[str] = []
        for message in messages:
            self._plane.repository.get(message.model)
            pair = self.pairing.add(message, monotonic())
            if pair is not None:
                made = MadeElsewhere(pair.model, pair.version, pair.request_id, pair.event_time_ms, pair.inputs, pair.outputs)
                receipts += self._plane.enter_elsewhere(made)
        answer = {"accepted": len(messages), "predictions": len(receipts), "receipts": receipts}
        return Response(200, orjson.dumps(answer))
