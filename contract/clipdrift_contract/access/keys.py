"""API keys: who is asking, and whether that one may. A file of digests, read again when it changes.

    salt = "any text"                      # optional; the same for all keys of the file

    [[key]]
    name = "billing"                       # what logs call its holder
    sha256 = "8c34...d1"                   # of the salt followed by the key, in hexadecimal
    scopes = ["infer", "feedback"]         # of infer, feedback, read, admin, respond, operate, approve, report
    models = ["churn-*"]                   # optional: only these models (* and ? as in file names)
    expires = 2027-01-31                   # optional: its last day, in UTC

Keys made here have 256 random bits, so one round of SHA-256 is enough to keep them; one that a person thought up is not safe.
"""

import base64
import binascii
import datetime
import hashlib
import hmac
import logging
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import translate
from pathlib import Path
from typing import Literal, NamedTuple, TextIO, get_args

import msgspec

from clipdrift_contract.access.changes import FileChanges
from clipdrift_contract.clock import MS_PER_DAY, Clock
from clipdrift_contract.errors import ClipdriftError, ConfigError

AccessScope = Literal["infer", "feedback", "read", "admin", "respond", "operate", "approve", "report"]
"""Of serving `infer`: predictions; `feedback`: labels; `admin`: all of its admin listener. Of the monitor `respond`: take and
silence incidents, say whether they were true; `operate`: order retrains and rollbacks; `approve`: agree to what waits for a
person, whom the key's name names; `report`: claim a retrain and tell its outcome, as jobs of a CI do. Of both `read`: what
they know."""

_NEVER_OPEN = frozenset({"admin", "respond", "operate", "approve", "report"})
_PREFIX = "clipdrift_"  # so that a scanner for leaked secrets can find keys
_BEARER = b"bearer "
_MAX_KEY_BYTES = 512
_MAX_MODELS_REMEMBERED = 1024
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_GLOB = re.compile(r"[A-Za-z0-9_.*?-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLACE = re.compile(r"\(at line \d+, column \d+\)")
_FIRST_DAY = datetime.date(1970, 1, 1)
_UNAUTHORIZED = (
    "this needs an API key, as Authorization: Bearer <key> or X-API-Key: <key>; none came, or it is unknown or expired"
)
_log = logging.getLogger(__name__)


class UnauthorizedError(ClipdriftError):
    """Nobody known is asking."""


class ForbiddenError(ClipdriftError):
    """Who asks may not have it."""


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key of the file, without the key."""

    name: str
    sha256: str
    scopes: tuple[AccessScope, ...]
    models: tuple[str, ...] = ()
    expires: datetime.date | None = None

    def __post_init__(self) -> None:
        # No message holds a value of the file: somebody will put the key itself where its digest belongs.
        if not _NAME.fullmatch(self.name):
            raise ValueError("name must be 1 to 64 letters, digits, dots, dashes and underscores")
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be 64 lower-case hexadecimal digits, got {len(self.sha256)} characters")
        if not self.scopes:
            raise ValueError("scopes must name at least one scope")
        if not all(_GLOB.fullmatch(glob) for glob in self.models):
            raise ValueError("models must be names of models, in which * and ? may stand")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: tuple[KeyEntry, ...]
    salt: str = ""


class _Holder:
    """A key in use."""

    __slots__ = ("_models", "_remembered", "digest", "name", "scopes")

    def __init__(self, entry: KeyEntry) -> None:
        self.name = entry.name
        self.digest = bytes.fromhex(entry.sha256)
        self.scopes: frozenset[str] = frozenset(entry.scopes)
        self._models = re.compile("|".join(map(translate, entry.models))) if entry.models else None
        self._remembered: set[str] = set()

    def may_use(self, model: str | None, scope: str) -> bool:
        """Whether the key is good for the model; None stands for a request about none in particular."""
        if self._models is None or model in self._remembered:
            return True
        if model is None:
            return scope == "read"
        if self._models.match(model) is None:
            return False
        if len(self._remembered) < _MAX_MODELS_REMEMBERED:
            self._remembered.add(model)
        return True


class _Keys(NamedTuple):
    """What a file or a secret holds: the keys of today by the first half of their digest."""

    salt: bytes
    holders: dict[bytes, _Holder]

    def find(self, key: bytes) -> _Holder | None:
        digest = hashlib.sha256(self.salt + key).digest()
        holder = self.holders.get(digest[:16])
        if holder is None or not hmac.compare_digest(digest, holder.digest):
            return None
        return holder


class ApiKeys:
    """Checks the key that comes with a request. Of keys, only digests are kept. One thread only.

    Without a file and without a secret everything is open to anybody, but for what changes something beyond a label: `admin`,
    `respond`, `operate`, `approve`, `report`.

    A file is looked at once a second at most, while requests come. One that cannot be read, or holds no key, leaves the keys as
    they were and is logged once: a slip in an editor must neither lock everybody out nor let everybody in.

    Args:
        file: Keys, as the module's head shows.
        secret: One key for `infer`, `feedback` and `read` of all models, by the name `environment`.
        clock: Says when to look again, and which day it is.

    Raises:
        ConfigError: The file is missing or wrong at the start.
    """

    def __init__(self, clock: Clock, file: Path | None = None, secret: str = "") -> None:
        self._clock = clock
        self._file = file
        self._changes = FileChanges([] if file is None else [file], clock)
        self._content = b"" if file is None else _read(file)
        self._entries = _File(key=()) if file is None else _parse(file, self._content)
        self._secret = () if not secret else (_entry_of(secret),)
        self._day = 0
        self._sources: tuple[_Keys, ...] = ()
        self.num_refused_files = 0
        self._use()

    @property
    def is_open(self) -> bool:
        """Whether nothing that may be open needs a key."""
        return self._file is None and not self._secret

    def __repr__(self) -> str:
        """Says how many keys there are, and nothing of them."""
        return f"ApiKeys({len(self._entries.key) + len(self._secret)} keys)"

    def check(self, authorization: bytes | None, scope: AccessScope, model: str | None = None) -> str:
        """The name of the key's holder; empty where no key is needed.

        Args:
            authorization: What `credentials` found.
            scope: What is asked for.
            model: The model that is asked for. None: none in particular; a key that is bound to models may then only `read`.

        Raises:
            UnauthorizedError: No key, or an unknown or expired one.
            ForbiddenError: The key does not reach so far.
        """
        if self.is_open and scope not in _NEVER_OPEN:
            return ""
        if self._changes.are_due():
            self._refresh()
        holder = self._holder(authorization)
        if holder is None:
            raise UnauthorizedError(_UNAUTHORIZED)
        if scope not in holder.scopes:
            raise ForbiddenError(f"the key {holder.name!r} is not for {scope}; it is for {sorted(holder.scopes)}")
        if not holder.may_use(model, scope):
            raise ForbiddenError(f"the key {holder.name!r} is bound to other models")
        return holder.name

    def _holder(self, authorization: bytes | None) -> _Holder | None:
        if authorization is None or authorization[:7].lower() != _BEARER or len(authorization) > _MAX_KEY_BYTES:
            return None
        key = authorization[7:].strip()
        for source in self._sources:
            holder = source.find(key)
            if holder is not None:
                return holder
        return None

    def _refresh(self) -> None:
        """Take over a changed file, and leave out whose last day is over."""
        has_changed = self._changes.have_changed()
        if has_changed and self._file is not None:
            self._take_over(self._file)
        if has_changed or self._clock.now_ms() // MS_PER_DAY != self._day:
            self._use()

    def _take_over(self, file: Path) -> None:
        try:
            content = _read(file)
            if content != self._content:
                self._content = content
                self._entries = _parse(file, content)
        except ConfigError as error:
            self.num_refused_files += 1
            _log.error("the API keys stay as they were: %s", error)

    def _use(self) -> None:
        self._day = self._clock.now_ms() // MS_PER_DAY
        today = _FIRST_DAY + datetime.timedelta(days=self._day)
        sources = (_File(key=self._secret), self._entries)
        self._sources = tuple(_keys(source, today) for source in sources if source.key)


def credentials(headers: Mapping[bytes, bytes]) -> bytes | None:
    """What `ApiKeys.check` takes, from headers with names in lower case: `Authorization`, else `X-API-Key`.

    Example:
        >>> credentials({b"x-api-key": b"abc"})
        b'Bearer abc'
    """
    given = headers.get(b"authorization")
    if given is not None:
        return given
    key = headers.get(b"x-api-key")
    return None if key is None else b"Bearer " + key


def from_basic(authorization: bytes) -> bytes:
    """The password of Basic authentication, as browsers ask for it, as a bearer's key; anything else as it is.

    Example:
        >>> from_basic(b"Basic YW55Ym9keTpzZWNyZXQ=")
        b'Bearer secret'
    """
    scheme, _, rest = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return authorization
    try:
        return b"Bearer " + base64.b64decode(rest, validate=True).partition(b":")[2]
    except binascii.Error:
        return authorization


class NewKey(NamedTuple):
    """A key that was just made. The secret is nowhere else."""

    secret: str
    entry: KeyEntry

    def __repr__(self) -> str:
        """Without the secret."""
        return f"NewKey({self.entry.name!r})"

    def lines(self) -> str:
        """The entry, as the file takes it."""
        fields = ["[[key]]", f'name = "{self.entry.name}"', f'sha256 = "{self.entry.sha256}"']
        fields += [f"scopes = {_toml_list(self.entry.scopes)}"]
        fields += [f"models = {_toml_list(self.entry.models)}"] * bool(self.entry.models)
        fields += [f"expires = {self.entry.expires}"] * (self.entry.expires is not None)
        return "\n".join(fields) + "\n"


def make_key(
    name: str,
    scopes: Sequence[AccessScope],
    models: Sequence[str] = (),
    expires: datetime.date | None = None,
    salt: str = "",
) -> NewKey:
    """A new key of 256 random bits.

    Args:
        name: What logs call its holder.
        scopes: What it is good for.
        models: Names in which `*` and `?` may stand; none: all models.
        expires: Its last day, in UTC.
        salt: The file's, where it has one.

    Raises:
        ValueError: A name, scope or model that the file could not hold.
    """
    unknown = set(scopes) - set(get_args(AccessScope))
    if unknown:
        raise ValueError(f"scopes must be of {get_args(AccessScope)}, got {sorted(unknown)}")
    secret = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256((salt + secret).encode()).hexdigest()
    return NewKey(secret, KeyEntry(name=name, sha256=digest, scopes=tuple(scopes), models=tuple(models), expires=expires))


def show_once(made: NewKey, out: TextIO) -> None:
    """Write the key and its entry to a terminal: the only time that the key is shown."""
    out.write(f"The key, shown this once:\n\n    {made.secret}\n\nAdd to the file of keys:\n\n{made.lines()}")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: the API keys cannot be read: {error.strerror}") from error


def _parse(file: Path, content: bytes) -> _File:
    try:
        parsed = msgspec.convert(tomllib.loads(content.decode()), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        place = "".join(_PLACE.findall(str(error)))
        raise ConfigError(f"{file}: no TOML file of API keys: [[key]] with name, sha256, scopes {place}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {_without_values(str(error))}") from None
    if not parsed.key:
        raise ConfigError(f"{file}: there is no [[key]] in it")
    for field in ("name", "sha256"):
        if len({getattr(entry, field) for entry in parsed.key}) < len(parsed.key):
            raise ConfigError(f"{file}: two keys have the same {field}")
    return parsed


def _without_values(message: str) -> str:
    """A message of msgspec, which may quote what it found, without that: it may be a key."""
    problem, at, place = message.partition(" - at ")
    return re.sub(r"'[^']*'|unknown field `[^`]*`", "...", problem) + at + place


def _entry_of(secret: str) -> KeyEntry:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return KeyEntry(name="environment", sha256=digest, scopes=("infer", "feedback", "read"))


def _keys(file: _File, today: datetime.date) -> _Keys:
    valid = [_Holder(entry) for entry in file.key if entry.expires is None or today <= entry.expires]
    return _Keys(file.salt.encode(), {holder.digest[:16]: holder for holder in valid})


def _toml_list(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
