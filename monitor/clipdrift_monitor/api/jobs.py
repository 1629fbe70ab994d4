"""The calls of jobs and of CIs: read from the request, handed to the engine, and answered once it is saved."""

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

from clipdrift_contract.access.keys import UnauthorizedError
from clipdrift_monitor.api.hooks import HOOKS, HookName, is_genuine, names_in
from clipdrift_monitor.api.job_bodies import (
    MAX_OUTCOME_BYTES,
    MAX_RUN_CHARACTERS,
    MAX_URL_CHARACTERS,
    Beating,
    Claimed,
    JobBeat,
    JobBody,
    JobClaim,
    JobOutcome,
    OutcomeTaken,
    Woken,
)
from clipdrift_monitor.api.orders import MAX_BODY_BYTES, carry_out, read_body
from clipdrift_monitor.api.questions import Asked
from clipdrift_monitor.engine.engine import Engine

_EXAMPLES = {
    JobClaim: '{"run": "github-7-1", "url": "https://...", "attempt": 1}',
    JobBeat: '{"run": "github-7-1"}',
    JobOutcome: '{"run": "github-7-1", "outcome": {...}, "run_end": {...}}',
}


class Jobs:
    """One method for each call of a job, and one for all webhooks.

    Args:
        engine: Carries out what is asked.
        beat_seconds: How often jobs are to say that they live.
        hook_secret: What webhooks prove that they know; empty: all are refused.
        seconds: How long a call may wait for the engine.
    """

    def __init__(self, engine: Engine, beat_seconds: int, hook_secret: str, seconds: float = 20.0) -> None:
        self._engine = engine
        self._seconds = seconds
        self._beat_seconds = beat_seconds
        self._hook_secret = hook_secret

    async def claim(self, asked: Asked, told: JobClaim) -> Claimed:
        runs = self._engine.runs
        claim = await carry_out(self._engine, lambda draft: runs.claim(draft, asked["key"], told.run, told.url), self._seconds)
        return Claimed(request=claim.request, attempt=claim.attempt, beat_seconds=self._beat_seconds)

    async def beat(self, asked: Asked, told: JobBeat) -> Beating:
        runs = self._engine.runs
        await carry_out(self._engine, lambda draft: runs.beat(draft, asked["key"], told.run), self._seconds)
        return Beating(beat_seconds=self._beat_seconds)

    async def outcome(self, asked: Asked, told: JobOutcome) -> OutcomeTaken:
        runs = self._engine.runs
        taken = await carry_out(
            self._engine,
            lambda draft: runs.report(draft, asked["key"], told.run, told.outcome, told.run_end),
            self._seconds,
        )
        return OutcomeTaken(is_taken=taken.is_taken, words=taken.words)

    async def hook(self, request: Request, name: HookName) -> Woken:
        """A look at the runs that a CI's webhook is about.

        Raises:
            UnauthorizedError: It does not come from the CI.
        """
        body = await read_body(request, MAX_OUTCOME_BYTES)
        if not is_genuine(name, request.headers, body, self._hook_secret):
            raise UnauthorizedError(
                f"a webhook of {name} must prove that it knows CLIPDRIFT_CI_HOOK_SECRET; without one, none is taken"
            )
        try:
            names = names_in(name, msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPException(400, f"the body must be JSON: {error}") from error
        if not names:
            return Woken(num_woken=0)
        num_woken = await carry_out(self._engine, lambda draft: self._engine.runs.wake(names), self._seconds)
        return Woken(num_woken=num_woken)


async def read_job(request: Request, kind: type[JobBody]) -> Any:
    """What a job tells, checked.

    Raises:
        HTTPException: 400, 408 or 413, with how it should be.
    """
    body = await read_body(request, MAX_OUTCOME_BYTES if kind is JobOutcome else MAX_BODY_BYTES)
    try:
        told = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"the body must be like {_EXAMPLES[kind]}: {error}") from error
    if not 0 < len(told.run) <= MAX_RUN_CHARACTERS or not told.run.isprintable():
        raise HTTPException(400, f"run must be 1 to {MAX_RUN_CHARACTERS} printable characters, got {told.run[:100]!r}")
    url = told.url if isinstance(told, JobClaim) else ""
    if len(url) > MAX_URL_CHARACTERS or (url and not url.startswith(("https://", "http://"))) or not url.isprintable():
        raise HTTPException(400, f"url must begin with https:// or http:// and be printable, got {url[:100]!r}")
    return told


def hook_of(path: str) -> HookName:
    """Whose webhook is taken at a path."""
    return next(name for name in HOOKS if path.endswith(f"/{name}"))
