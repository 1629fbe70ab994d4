"""The files of versions over HTTP, for jobs of the scope `report`."""

import base64
import binascii
import re
from pathlib import Path

import anyio
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from clipdrift_contract.events import RunEnd
from clipdrift_monitor.api.access import Access
from clipdrift_monitor.api.files import (
    BrokenFileError,
    FileConflictError,
    Incoming,
    StoredFile,
    UnknownFileError,
    folder_of,
    is_name,
    is_version,
    list_files,
    path_of,
)
from clipdrift_monitor.store.store import RetrainRow, Store

_SECONDS = 1_800.0  # for one file
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")
_DIGEST_BYTES = 32
_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class FileRoutes:
    """Gives the files of versions to jobs, and takes those of candidates.

    Args:
        store: Knows versions, orders, and who carries one out.
        access: Who may do what.
        artifacts_dir: Where versions are kept, as `MODEL/VERSION/`.
    """

    def __init__(self, store: Store, access: Access, artifacts_dir: Path) -> None:
        self._store = store
        self._access = access
        self._artifacts_dir = artifacts_dir

    def routes(self) -> list[Route]:
        version = "/api/v1/models/{model}/versions/{version}/files"
        return [
            Route(version, self._list, methods=["GET"]),
            Route(f"{version}/{{name}}", self._give, methods=["GET"]),
            Route("/api/v1/retrains/{key}/files/{name}", self._take, methods=["PUT"]),
        ]

    async def _list(self, request: Request) -> Response:
        folder = await self._folder(request)
        return _json(await run_in_threadpool(list_files, folder))

    async def _give(self, request: Request) -> Response:
        folder = await self._folder(request)
        try:
            path = await run_in_threadpool(path_of, folder, request.path_params["name"])
        except UnknownFileError as error:
            raise HTTPException(404, str(error)) from error
        return FileResponse(path, media_type="application/octet-stream", headers=_HEADERS)

    async def _folder(self, request: Request) -> Path:
        model, version = request.path_params["model"], request.path_params["version"]
        self._access.check(request.headers, "report", model)
        try:
            return folder_of(await run_in_threadpool(self._run_of, model, version))
        except UnknownFileError as error:
            raise HTTPException(404, str(error)) from error

    def _run_of(self, model: str, version: str) -> RunEnd:
        run = self._store.run(model, version)
        if run is None:
            raise UnknownFileError(f"{model} has no version {version[:200]!r}")
        return run

    async def _take(self, request: Request) -> Response:
        """A file of a candidate, from the run that carries out the order."""
        key, name = request.path_params["key"], request.path_params["name"]
        row = await run_in_threadpool(self._store.retrain, key)
        self._access.check(request.headers, "report", None if row is None else row.model)
        if row is None:
            raise HTTPException(404, f"no retrain {key[:200]!r} was ordered here")
        version, expected = _named(request), _announced(request)
        if not is_name(name) or not is_version(version):
            raise HTTPException(400, f"file and version are letters, digits, _ and -, got {name[:100]!r}, {version[:100]!r}")
        self._check_owner(row, request.query_params.get("run", ""))
        known = await run_in_threadpool(self._store.run, row.model, version)
        if known is not None and known.retrain_key != key:
            raise HTTPException(409, f"{version} is not of this retrain: what is known never changes")
        folder = self._artifacts_dir / row.model / version
        try:
            return _json(await _receive(request, folder, name, expected))
        except FileConflictError as error:
            raise HTTPException(422, str(error)) from error
        except BrokenFileError as error:
            raise HTTPException(400, str(error)) from error

    def _check_owner(self, row: RetrainRow, run: str) -> None:
        owner = "" if row.run is None or row.run.has_ended or row.run.cancelled_by else row.run.owner
        if row.outcome is not None or not owner or owner != run:
            whose = f" but {owner}'s" if owner else ", and nobody's any more"
            raise HTTPException(409, f"retrain {row.key} is not {run[:200]!r}'s{whose}")


async def _receive(request: Request, folder: Path, name: str, expected: str) -> StoredFile:
    incoming = await run_in_threadpool(Incoming, folder, name, expected)
    with incoming:
        try:
            with anyio.fail_after(_SECONDS):
                async for piece in request.stream():
                    await run_in_threadpool(incoming.write, piece)
        except TimeoutError as error:
            raise HTTPException(408, f"the file did not arrive within {_SECONDS:g} s") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the client went away") from error
        return await run_in_threadpool(incoming.keep)


def _named(request: Request) -> str:
    return request.query_params.get("version", "")


def _announced(request: Request) -> str:
    """The digest that the file must come to, as hexadecimal digits. Source: RFC 9530."""
    given = _DIGEST.search(request.headers.get("content-digest", ""))
    try:
        digest = base64.b64decode(given[1], validate=True) if given else b""
    except binascii.Error:
        digest = b""
    if len(digest) != _DIGEST_BYTES:
        raise HTTPException(400, "a file needs Content-Digest: sha-256=:BASE64: of its whole content")
    return digest.hex()


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), 200, _HEADERS, "application/json")
