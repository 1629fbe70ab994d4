"""What one request was answered, in words for people: where an exemplar of a metric leads."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from clipdrift_contract.profile import ReferenceProfile
from clipdrift_serving.dataplane.description import found
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.receipts import Receipt
from clipdrift_serving.dataplane.repository import ModelRepository

FindAnswers: TypeAlias = Callable[[str, str], Sequence[Sequence[Receipt]]]
"""Answers by model and the caller's request id, each with its rows."""


def no_answers(model: str, request_id: str) -> Sequence[Sequence[Receipt]]:
    """A `FindAnswers` where no request ids are kept."""
    del model, request_id
    return ()


def answers_told(repository: ModelRepository, find: FindAnswers, model: str, request_id: str) -> dict[str, Any]:
    """Version, role, generation, time, and of each row the slice, the prediction and the scores.

    Classes and slices have their names while the version is loaded, and their numbers afterwards.

    Raises:
        RequestError: Nothing is kept under this id.
    """
    answers = find(model, request_id)
    if not answers:
        raise RequestError(
            "not_found",
            f"no answer of {model!r} is kept under the request id {request_id[:100]!r}; ids are kept as [serving.request_ids] "
            "says, by the servers of one host",
        )
    return {"model": model, "request_id": request_id, "answers": [_answer(repository, model, rows) for rows in answers]}


def _answer(repository: ModelRepository, model: str, rows: Sequence[Receipt]) -> dict[str, Any]:
    first = rows[0]
    try:
        profile = found(repository, model, first.version)[1].profile
    except RequestError:
        profile = None
    return {
        "version": first.version,
        "role": first.role,
        "generation": first.generation,
        "time": datetime.fromtimestamp(first.event_time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "rows": [_row(row, profile) for row in rows],
    }


def _row(row: Receipt, profile: ReferenceProfile | None) -> dict[str, Any]:
    names = profile.slice_names if profile is not None else ()
    classes = profile.classes if profile is not None and row.num_classes else ()
    is_named = 0 <= row.slice_index < len(names)
    told: dict[str, Any] = {
        "epoch": row.epoch,
        "sequence": row.sequence,
        "slice": names[row.slice_index] if is_named else row.slice_index,
        "predicted": classes[int(row.predicted)] if row.num_classes and int(row.predicted) < len(classes) else row.predicted,
    }
    if row.num_classes:
        labels = classes if len(classes) == row.num_classes else [str(index) for index in range(row.num_classes)]
        told["scores"] = {label: round(score, 5) for label, score in zip(labels, row.scores, strict=True)}
    return told
