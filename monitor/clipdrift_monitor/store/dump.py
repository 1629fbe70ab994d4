"""A whole store as a stream of frames: into a file (a backup), out of one (a restore), or from one database into another.

The frames hold names and values and nothing of a database's own, so a backup of SQLite restores into PostgreSQL and the other
way round, and one of an older schema takes the steps that are missing on its way. A file is the frames, each behind its length,
compressed; the last one holds a digest of all before it, so a file that was cut off or changed is found before anything is
written.
"""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, MetaData, Table, func, inspect, select, text

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.store import migrations
from clipdrift_monitor.store import tables as t
from clipdrift_monitor.store.database import Database

FORMAT = 1
_CHUNK_ROWS = 500
_CHUNK_BYTES = 4_000_000
_LENGTH = struct.Struct(">I")
_COMPRESSION = 4  # windows are mostly zeros: harder work saves little more
_NOT_DUMPED = ("schema_version", "writer")


class Head(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first frame."""

    format: int
    schema: int
    database: str  # where it was made: "sqlite" or "postgresql"
    made_at_ms: int
    epoch: int  # of the writer


class Rows(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Some rows of one table."""

    table: str
    columns: tuple[str, ...]
    rows: list[list[Any]]


class End(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The last frame."""

    num_rows: dict[str, int]
    digest: str  # SHA-256 over the frames before


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds, or what was written."""

    schema: int
    made_at_ms: int
    num_rows: dict[str, int]
    num_bytes: int = 0  # of the file


Frame = Head | Rows | End
_encode = msgspec.msgpack.encode
_decoder = msgspec.msgpack.Decoder(Frame)


def back_up(database: Database, path: Path, now_ms: int) -> Contents:
    """Write everything into a file, as it is at one moment; a monitor that runs goes on. The file is there whole or not at all.

    Raises:
        ConfigError: The file cannot be written.
        RetryableError: The store is away.
    """
    partial = path.with_name(path.name + ".partial")
    digest, num_rows, head = hashlib.sha256(), dict[str, int](), None
    try:
        with (
            partial.open("wb") as plain,
            gzip.GzipFile("", "wb", _COMPRESSION, plain, mtime=0) as file,
            database.snapshot() as seen,
        ):
            for frame in frames_of(seen, now_ms):
                _write(file, frame, digest)
                if isinstance(frame, Rows):
                    num_rows[frame.table] = num_rows.get(frame.table, 0) + len(frame.rows)
                else:
                    head = frame
            _write(file, End(num_rows=num_rows, digest=digest.hexdigest()), digest)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"the backup cannot be written to {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    assert isinstance(head, Head)
    return Contents(schema=head.schema, made_at_ms=now_ms, num_rows=num_rows, num_bytes=path.stat().st_size)


def look_at(path: Path) -> Contents:
    """What a backup holds, read to its end.

    Raises:
        ConfigError: It is not a backup of this program's, or was cut off or changed.
    """
    head, end = None, None
    for frame in _read(path):
        head = frame if isinstance(frame, Head) else head
        end = frame if isinstance(frame, End) else end
    assert head is not None
    assert end is not None
    return Contents(schema=head.schema, made_at_ms=head.made_at_ms, num_rows=end.num_rows, num_bytes=path.stat().st_size)


def restore(database: Database, path: Path, *, force: bool, now_ms: int) -> Contents:
    """Make a store what a backup holds, in one transaction.

    A monitor that runs on it meanwhile can write nothing more until it has read everything anew.

    Args:
        database: The store; of any schema version up to this program's.
        path: The backup.
        force: Also where the store holds something, which is lost then.
        now_ms: For the steps of the schema that are missing.

    Raises:
        ConfigError: The file is no whole backup, or of a newer version; or the store is not empty and `force` is off.
        RetryableError: The store is away or locked; nothing was written.
    """
    found = look_at(path)
    load(database, _read(path), force=force, now_ms=now_ms)
    return found


def copy(source: Database, target: Database, *, force: bool, now_ms: int) -> Contents:
    """Make one store what another is at this moment; otherwise as `restore`."""
    num_rows: dict[str, int] = {}

    def counted(frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if isinstance(frame, Rows):
                num_rows[frame.table] = num_rows.get(frame.table, 0) + len(frame.rows)
            yield frame

    with source.snapshot() as seen:
        load(target, counted(frames_of(seen, now_ms)), force=force, now_ms=now_ms)
    return Contents(schema=migrations.NEWEST, made_at_ms=now_ms, num_rows=num_rows)


def frames_of(connection: Connection, now_ms: int) -> Iterator[Frame]:
    """Head and rows, in the order of the tables' names and keys."""
    schema = migrations.found_version(connection)
    if not schema:
        raise ConfigError("there is no store to back up: the database is empty")
    names = sorted(set(inspect(connection).get_table_names()) - set(_NOT_DUMPED))
    epoch = connection.execute(select(t.WRITER.c.epoch)).scalar() if schema > 1 else 0
    yield Head(format=FORMAT, schema=schema, database=connection.dialect.name, made_at_ms=now_ms, epoch=int(epoch or 0))
    for name in names:
        table = Table(name, MetaData(), autoload_with=connection)  # of whatever version the store is
        columns = tuple(str(column.name) for column in table.columns)
        query = select(table).order_by(*table.primary_key.columns)
        for rows in _chunks(connection.execution_options(yield_per=_CHUNK_ROWS).execute(query)):
            yield Rows(table=name, columns=columns, rows=rows)


def load(database: Database, frames: Iterable[Frame], *, force: bool, now_ms: int) -> None:
    """Replace what the store holds by the frames, in one transaction.

    Raises:
        ConfigError: The frames are of a newer version, or the store is not empty and `force` is off.
    """
    remaining = iter(frames)
    head = next(remaining)
    assert isinstance(head, Head), head
    if head.schema > migrations.NEWEST:
        raise ConfigError(
            f"it was made by a newer Clipdrift (schema {head.schema}, this one knows {migrations.NEWEST}): upgrade this one"
        )
    with database.transaction() as connection:
        epoch = _clear(connection, force=force)
        for step in migrations.STEPS[: head.schema]:
            migrations.step_up(connection, step, now_ms)
        for frame in remaining:
            if isinstance(frame, Rows):
                table = Table(frame.table, MetaData(), autoload_with=connection)
                connection.execute(table.insert(), [dict(zip(frame.columns, row, strict=True)) for row in frame.rows])
        for step in migrations.STEPS[head.schema :]:
            migrations.step_up(connection, step, now_ms)
        # later than every writer that there was, here or there: none of them can go on as if nothing had happened
        connection.execute(t.WRITER.update().values(epoch=max(epoch, head.epoch) + 1, owner="", beat=0))
        if connection.dialect.name == "postgresql":
            highest = connection.execute(select(func.max(t.OUTBOX.c.id))).scalar()
            connection.execute(
                text("SELECT setval(pg_get_serial_sequence('outbox', 'id'), :highest, :is_used)"),
                {"highest": highest or 1, "is_used": highest is not None},
            )


def _clear(connection: Connection, *, force: bool) -> int:
    """Drop all tables of a store; its writer's epoch."""
    version, epoch = migrations.found_version(connection), 0
    if not version:
        return 0
    found = MetaData()
    found.reflect(connection)
    if version > 1:
        epoch = int(connection.execute(select(t.WRITER.c.epoch).with_for_update()).scalar() or 0)
    held = sorted(
        name
        for name, table in found.tables.items()
        if name not in _NOT_DUMPED and connection.execute(select(table).limit(1)).first() is not None
    )
    if held and not force:
        raise ConfigError(
            f"the store is not empty (it holds {', '.join(held)}); back it up first, then say --force to replace all of it"
        )
    found.drop_all(connection)
    return epoch


def _chunks(found: Iterable[Any]) -> Iterator[list[list[Any]]]:
    rows: list[list[Any]] = []
    num_bytes = 0
    for row in found:
        rows.append(list(row))
        num_bytes += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
        if len(rows) >= _CHUNK_ROWS or num_bytes >= _CHUNK_BYTES:
            yield rows
            rows, num_bytes = [], 0
    if rows:
        yield rows


def _write(file: gzip.GzipFile, frame: Frame, digest: "hashlib._Hash") -> None:
    packed = _encode(frame)
    digest.update(packed)
    file.write(_LENGTH.pack(len(packed)) + packed)


def _read(path: Path) -> Iterator[Frame]:
    """Frames of a file; that it is whole and unchanged is known when the last one has come."""
    try:
        with gzip.open(path, "rb") as file:
            yield from _checked(file.read)
    except OSError as error:  # gzip's "not a gzipped file" is one
        raise ConfigError(f"{path} cannot be read as a backup: {error}") from error
    except (EOFError, zlib.error, msgspec.DecodeError, struct.error) as error:
        raise ConfigError(f"the backup {path} was cut off or changed: {error}") from error


def _checked(read: Callable[[int], bytes]) -> Iterator[Frame]:
    digest, frame = hashlib.sha256(), None
    while not isinstance(frame, End):
        (length,) = _LENGTH.unpack(read(_LENGTH.size))
        packed = read(length)
        before, frame = frame, _decoder.decode(packed)
        if before is None and (not isinstance(frame, Head) or frame.format > FORMAT):
            raise ConfigError("the file is not a store's backup, or one of a newer Clipdrift: upgrade this one")
        if isinstance(frame, End) and frame.digest != digest.hexdigest():
            raise EOFError("its digest is another one")
        digest.update(packed)
        yield frame
