"""Carries out one errand at a backend, and says what was seen. Waits for the network, and never raises for it."""

import logging
from collections.abc import Callable

import msgspec

from clipdrift_monitor.actions.backends.backend import (
    Attempt,
    AwayError,
    Backend,
    CiRun,
    RefusedError,
    UnsureError,
)
from clipdrift_monitor.actions.course import Errand as Kind
from clipdrift_monitor.actions.course import NoAnswer, NotBegun, NotSeen, Observation, Seen

_log = logging.getLogger(__name__)


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be asked of the CI. What comes of it concerns this attempt alone."""

    kind: Kind
    attempt: Attempt
    run_id: str  # empty: the run is to be found first
    epoch: int  # of the engine's memory that it was made from


def carry_out(backend: Backend, errand: Errand, is_current: Callable[[Errand], bool]) -> Observation | None:
    """What was seen; None where the errand is not for this monitor any more, and nothing was done.

    Args:
        backend: Where to ask.
        errand: What to ask. That a start is about to be asked for has been saved.
        is_current: Whether the one that made it still writes the store: asked last before a run is begun.
    """
    if errand.kind == "start":
        return _start(backend, errand, is_current)
    try:
        if errand.kind == "cancel":
            _cancel(backend, errand)
        found = backend.look(errand.attempt, errand.run_id) if errand.run_id else backend.find(errand.attempt)
    except (AwayError, UnsureError, RefusedError) as error:
        return NoAnswer(reason=str(error), retry_at_ms=_retry_at_ms(error))
    return NotSeen() if found is None else _seen(backend, errand.attempt, found)


def _start(backend: Backend, errand: Errand, is_current: Callable[[Errand], bool]) -> Observation | None:
    attempt = errand.attempt
    try:
        found = backend.find(attempt)
    except (AwayError, UnsureError, RefusedError) as error:
        return NoAnswer(reason=str(error), retry_at_ms=_retry_at_ms(error))
    if found is not None:
        _log.info("%s is run %s of the CI already: adopted", attempt.title, found.run_id)
        return _seen(backend, attempt, found)
    if not is_current(errand):
        return None
    try:
        begun = backend.dispatch(attempt)
    except UnsureError as error:
        return NoAnswer(reason=str(error), was_dispatched=True)
    except (AwayError, RefusedError) as error:
        is_refused = isinstance(error, RefusedError)
        return NotBegun(reason=str(error), retry_at_ms=_retry_at_ms(error), is_refused=is_refused)
    _log.info("%s is run %s of the CI, %s", attempt.title, begun.run_id or "(not named)", begun.url or "without a link")
    return _seen(backend, attempt, begun)


def _cancel(backend: Backend, errand: Errand) -> None:
    run_id = errand.run_id
    if not run_id and (found := backend.find(errand.attempt)) is not None:
        run_id = found.run_id
    if run_id:
        backend.cancel(errand.attempt, run_id)


def _seen(backend: Backend, attempt: Attempt, run: CiRun) -> Seen:
    """With the log's end, where the run has come to its own."""
    tail = ""
    if run.state in ("succeeded", "failed") and run.run_id:
        try:
            tail = backend.log_tail(attempt, run.run_id)
        except (AwayError, UnsureError, RefusedError) as error:
            _log.info("the log of %s cannot be had: %s", attempt.title, error)
    return Seen(run=run, log_tail=tail)


def _retry_at_ms(error: Exception) -> int:
    return error.retry_at_ms if isinstance(error, AwayError) else 0
