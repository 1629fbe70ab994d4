"""The forms of an approval's page: read from the request, checked as the calls for programs are, answered with the page."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from clipdrift_contract.access.keys import ForbiddenError, UnauthorizedError
from clipdrift_contract.clock import format_moment
from clipdrift_monitor.api.access import Access
from clipdrift_monitor.api.operations import Order
from clipdrift_monitor.api.orders import MAX_BODY_BYTES, Orders, checked_order, read_body
from clipdrift_monitor.api.retrain_answers import Agreement, ApprovalTold, Look
from clipdrift_monitor.api.retrain_pages import RetrainPages
from clipdrift_monitor.api.retrain_reader import RetrainReader
from clipdrift_monitor.engine.commands import CommandError

_NO_KEY = "type your API key (of the scope `approve`) into the form: a browser's own is good for reading only"


class ApprovalForms:
    """Answers what is posted from an approval's page. The key comes in the form, typed by whoever answers; what a browser sends
    by itself opens nothing here, so that no other page can answer in somebody's name.

    Args:
        orders: Carry out what is said.
        retrains: Know approvals.
        pages: Render the page that comes back.
        access: Knows the keys.
    """

    def __init__(self, orders: Orders, retrains: RetrainReader, pages: RetrainPages, access: Access) -> None:
        self._orders = orders
        self._retrains = retrains
        self._pages = pages
        self._access = access

    async def answer(self, request: Request, headers: Mapping[str, str]) -> Response:
        """What a form says is done, or why not; the page that shows it.

        Args:
            request: With the form.
            headers: Of the page that comes back.

        Raises:
            UnknownApprovalError: There is no such approval.
            HTTPException: 400, 408 or 413 where it is no form.
        """
        approval_id = request.path_params["approval_id"]
        approval = await run_in_threadpool(self._retrains.approval, approval_id)
        said = _fields(await read_body(request, MAX_BODY_BYTES))
        told, message, status = None, "", 200
        try:
            holder = self._holder(said, approval.model)
            told, message = await self._do(said, {"approval_id": approval.approval_id, "holder": holder})
        except (CommandError, UnauthorizedError, ForbiddenError) as error:
            message = str(error)
            status = 409 if isinstance(error, CommandError) else 401 if isinstance(error, UnauthorizedError) else 403
        except HTTPException as error:
            message, status = error.detail, error.status_code
        page = await run_in_threadpool(self._page, approval_id, told, message, status, said)
        return HTMLResponse(page, status, dict(headers))

    def _holder(self, said: Mapping[str, str], model: str) -> str:
        key = said.get("key", "").strip()
        if not key.isascii() or not key.isprintable() or not key:
            raise UnauthorizedError(_NO_KEY)
        return self._access.check({"authorization": f"Bearer {key}"}, "approve", model)

    async def _do(self, said: Mapping[str, str], asked: Mapping[str, Any]) -> tuple[ApprovalTold | None, str]:
        actor, reason = said.get("actor", "").strip() or "api", said.get("reason", "")
        what, holder = said.get("do", ""), asked["holder"]
        if what == "look":
            look = checked_order(_made(Look, actor=actor, expectation=said.get("expectation", "")), holder)
            return await self._orders.look(asked, look), "The evidence is open: from now on it is on record that you looked."
        if what in ("approve", "reject"):
            answer = checked_order(
                _made(
                    Agreement, actor=actor, reason=reason, evidence_digest=said.get("evidence_digest", ""),
                    is_break_glass=said.get("is_break_glass") == "yes",
                ),
                holder,
            )  # fmt: skip
            done = self._orders.approve if what == "approve" else self._orders.reject
            await done(asked, answer)
            return None, "It is approved, and done." if what == "approve" else "It is rejected: nothing is done."
        if what == "review":
            await self._orders.review(asked, checked_order(_made(Order, actor=actor, reason=reason), holder))
            return None, "The review is kept."
        raise HTTPException(400, f"a form says look, approve, reject or review, got {what[:50]!r}")

    def _page(self, approval_id: str, told: ApprovalTold | None, message: str, status: int, said: dict[str, str]) -> str:
        """After a look, and after an answer that was refused, the findings stay open to who had opened them."""
        approval = self._retrains.approval(approval_id)
        has_opened = told is not None or (status == 409 and "evidence_digest" in said)
        shown = told or self._retrains.told(approval, is_shown=True if has_opened else None)
        kept: dict[str, str] = {name: said[name] for name in ("actor", "reason") if status != 200 and name in said}
        if has_opened and shown.approval.opened:
            kept["opened"] = format_moment(shown.approval.opened[-1].at_ms)
        return self._pages.approval(shown, message=message, is_refused=status != 200, said=kept)


def _fields(body: bytes) -> dict[str, str]:
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:  # of the encoding, or too many
        raise HTTPException(400, "the body must be a form of an approval's page") from error
    return {name: values[-1].replace("\r\n", "\n") for name, values in found.items()}


def _made(kind: type[Any], **fields: Any) -> Any:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise HTTPException(400, f"the form is not as it should be: {error}") from error
