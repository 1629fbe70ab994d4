"""What people may order over HTTP: read from the request, handed to the engine, and answered once it is saved."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from clipdrift_contract.events import Incident
from clipdrift_monitor.api import answers
from clipdrift_monitor.api.job_bodies import Cancelled
from clipdrift_monitor.api.operations import MAX_ACTOR_CHARACTERS, MAX_REASON_CHARACTERS, Feedback, Order, Until
from clipdrift_monitor.api.questions import Asked
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.api.retrain_answers import Agreement, ApprovalTold, Look
from clipdrift_monitor.api.retrain_reader import RetrainReader
from clipdrift_monitor.approvals.approval import Approval
from clipdrift_monitor.approvals.people import by_key
from clipdrift_monitor.approvals.rules import approval_id_of
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.engine import Engine

T = TypeVar("T")
MAX_BODY_BYTES = 64 * 1024
_BODY_SECONDS = 30.0
_EXAMPLES = {
    Order: '{"reason": "..."}',
    Until: '{"reason": "...", "actor": "...", "until_ms": 1798761600000}',
    Feedback: '{"reason": "...", "actor": "...", "verdict": "true"}',
    Look: '{"actor": "...", "expectation": "better"}',
    Agreement: '{"reason": "...", "actor": "...", "evidence_digest": "..."}',
}


class Orders:
    """One method for each operation that changes something.

    Args:
        engine: Carries out what is ordered.
        reader: Knows models and incidents.
        retrains: Knows approvals.
        seconds: How long an order may wait for the engine.
    """

    def __init__(self, engine: Engine, reader: Reader, retrains: RetrainReader, seconds: float) -> None:
        self._engine = engine
        self._reader = reader
        self._retrains = retrains
        self._seconds = seconds

    async def rollback(self, asked: Asked, order: Order) -> answers.RolledBack:
        model = self._known(asked)

        def change(draft: Draft) -> answers.RolledBack:
            deployment = self._engine.commands.roll_back(draft, model, order.reason, order.actor)
            return answers.RolledBack(version=deployment.champion.version, generation=deployment.generation)

        return await self._carry_out(change)

    async def retrain(self, asked: Asked, order: Order) -> answers.RetrainOrdered:
        model = self._known(asked)

        def change(draft: Draft) -> answers.RetrainOrdered:
            key = self._engine.commands.order(draft, model, order.reason, order.actor).key
            is_asked = self._engine.approvals.asks("retrain")
            return answers.RetrainOrdered(key=key, approval=approval_id_of(model, "retrain", key) if is_asked else "")

        return await self._carry_out(change)

    async def acknowledge(self, asked: Asked, said: Until) -> Incident:
        incident_id = await self._known_incident(asked)
        return await self._carry_out(
            lambda draft: self._engine.responses.acknowledge(draft, incident_id, said.reason, said.actor, said.until_ms)
        )

    async def silence(self, asked: Asked, said: Until) -> Incident:
        incident_id = await self._known_incident(asked)
        return await self._carry_out(
            lambda draft: self._engine.responses.silence(draft, incident_id, said.reason, said.actor, said.until_ms)
        )

    async def feedback(self, asked: Asked, said: Feedback) -> Incident:
        incident_id = await self._known_incident(asked)
        return await self._carry_out(
            lambda draft: self._engine.responses.give_feedback(draft, incident_id, said.reason, said.actor, said.verdict)
        )

    async def look(self, asked: Asked, look: Look) -> ApprovalTold:
        approval_id = await self._known_approval(asked)
        seen = await self._carry_out(
            lambda draft: self._engine.approvals.look(draft, approval_id, look.actor, look.expectation)
        )
        return await run_in_threadpool(self._retrains.told, seen, is_shown=True)

    async def approve(self, asked: Asked, answer: Agreement) -> Approval:
        return await self._answer(asked, answer, is_approved=True)

    async def reject(self, asked: Asked, answer: Agreement) -> Approval:
        return await self._answer(asked, answer, is_approved=False)

    async def _answer(self, asked: Asked, answer: Agreement, *, is_approved: bool) -> Approval:
        approval_id = await self._known_approval(asked)
        return await self._carry_out(
            lambda draft: self._engine.approvals.answer(
                draft,
                approval_id,
                is_approved=is_approved,
                reason=answer.reason,
                actor=answer.actor,
                evidence_digest=answer.evidence_digest,
                is_break_glass=answer.is_break_glass,
                is_by_key=bool(asked["holder"]),
            )
        )

    async def review(self, asked: Asked, order: Order) -> Approval:
        approval_id = await self._known_approval(asked)
        return await self._carry_out(lambda draft: self._engine.approvals.review(draft, approval_id, order.reason, order.actor))

    async def _known_approval(self, asked: Asked) -> str:
        found = await run_in_threadpool(self._retrains.approval, asked["approval_id"])
        return found.approval_id

    def _known(self, asked: Asked) -> str:
        return self._reader.state(asked["model"]).model

    async def _known_incident(self, asked: Asked) -> str:
        found = await run_in_threadpool(self._reader.incident, asked["incident_id"])
        return found.incident_id

    async def cancel(self, asked: Asked, order: Order) -> Cancelled:
        runs = self._engine.runs
        run = await self._carry_out(lambda draft: runs.cancel(draft, asked["key"], order.reason, order.actor))
        return Cancelled(key=run.key, state=run.state)

    async def _carry_out(self, change: Callable[[Draft], T]) -> T:
        return await carry_out(self._engine, change, self._seconds)


async def carry_out(engine: Engine, change: Callable[[Draft], T], seconds: float) -> T:
    """What the engine answers once it has saved a change.

    Raises:
        HTTPException: 503 where it does not come to it in time.
    """
    future: Future[T] = engine.command(change)
    try:
        return await run_in_threadpool(future.result, seconds)
    except TimeoutError as error:
        late = f"the monitor did not come to it within {seconds:g} s"
        if future.cancel():
            raise HTTPException(503, f"{late}; nothing was done, try again") from error
        raise HTTPException(503, f"{late} and is still at it; look before you try again") from error


Command = Order | Until | Feedback | Look | Agreement


async def read_order(request: Request, kind: type[Command], holder: str) -> Any:
    """The body of an order, checked; whose key it came with is part of who ordered it.

    Raises:
        HTTPException: 400, 408 or 413, with how it should be.
    """
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        order = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"the body must be like {_EXAMPLES[kind]}: {error}") from error
    return checked_order(order, holder)


def checked_order(order: Command, holder: str) -> Any:
    """An order whose words may be kept; whose key it came with is part of who ordered it.

    Raises:
        HTTPException: 400, with how it should be.
    """
    _check(order)
    is_anonymous = holder and isinstance(order, Order | Look | Agreement) and order.actor == "api"
    return msgspec.structs.replace(order, actor=holder if is_anonymous else by_key(order.actor, holder))


async def read_body(request: Request, max_bytes: int) -> bytes:
    """A whole body.

    Raises:
        HTTPException: 400, 408 or 413 where it does not come, or is too large.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > max_bytes:
                    raise HTTPException(413, f"a command has at most {max_bytes} bytes")
    except TimeoutError as error:
        raise HTTPException(408, f"the command did not arrive within {_BODY_SECONDS:g} s") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client went away") from error
    return bytes(body)


def _check(order: Command) -> None:
    """What is kept in the record must be readable there."""
    reason = "" if isinstance(order, Look) else order.reason
    if not reason.strip() and not isinstance(order, Look | Agreement):  # whether an answer needs one, the policy says
        raise HTTPException(400, "a reason is needed: it is kept in the record")
    if len(reason) > MAX_REASON_CHARACTERS or "\0" in reason:
        raise HTTPException(400, f"a reason has at most {MAX_REASON_CHARACTERS} characters, none of them NUL")
    if not 0 < len(order.actor) <= MAX_ACTOR_CHARACTERS or not order.actor.isprintable():
        raise HTTPException(400, f"actor must be 1 to {MAX_ACTOR_CHARACTERS} printable characters, got {order.actor[:100]!r}")
