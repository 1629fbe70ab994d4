"""Turns a table of `clipdrift.toml` into the struct of the component that owns it; errors name file, section and key."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from clipdrift_contract.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)


def read_section(
    file: Path, section: str, table: Mapping[str, Any], owner: type[S], filled: Mapping[str, Any] | None = None
) -> S:
    """The settings of `[section]` in `file` as an `owner`.

    Args:
        file: Named in errors.
        section: The table's name without brackets, such as "policy.budget".
        table: What the file says.
        owner: The struct that checks it; a field that is a struct itself is a table below this one.
        filled: Fields that Clipdrift fills; the file may not set them.

    Raises:
        ConfigError: A setting is unknown or lacking, has the wrong type or value, or is one that Clipdrift fills.
    """
    given = filled or {}
    fields = {field.name: field.type for field in msgspec.structs.fields(owner)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{file}: [{section}] {key}"
        if key in given:
            raise ConfigError(f"{where} is filled by Clipdrift and cannot be set here; remove it")
        if key not in fields:
            raise ConfigError(f"{where} is no setting{_suggestion(key, fields.keys() - given.keys())}")
        values[key] = _read_value(file, section, key, value, fields[key])
    for field in msgspec.structs.fields(owner):
        if field.required and field.name not in values and field.name not in given:
            raise ConfigError(f"{file}: [{section}] needs {field.name}")
    try:
        return owner(**values, **given)
    except ValueError as error:
        words = str(error).removeprefix(f"{section.rpartition('.')[2]}.")  # owners name their section too
        raise ConfigError(f"{file}: [{section}] {words}") from error


def _read_value(file: Path, section: str, key: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, Mapping):
        return read_section(file, f"{section}.{key}", value, kind)
    if get_origin(kind) is Literal and value not in get_args(kind):
        allowed = ", ".join(str(one) for one in get_args(kind))
        raise ConfigError(f"{file}: [{section}] {key}: expected one of {allowed}, got {value!r}")
    try:
        return msgspec.convert(value, kind, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: [{section}] {key}: {_as_words(error)}, got {value!r}") from error


def _to_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")


def _as_words(error: msgspec.ValidationError) -> str:
    """msgspec's sentence; its `$` is the value of this key."""
    sentence, _, place = str(error).partition(" - at `$")
    sentence = sentence.partition(", got ")[0].replace("Expected", "expected").replace("Invalid", "invalid")
    sentence = sentence.replace("`object`", "a table").replace("`array`", "a list")  # as TOML calls them
    return f"at {place.rstrip('`')} {sentence}" if place else sentence


def _suggestion(key: str, allowed: Collection[str]) -> str:
    near = difflib.get_close_matches(key, allowed, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(sorted(allowed))}"
