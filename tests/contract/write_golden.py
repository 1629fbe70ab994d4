"""Writes golden/EVENT-vN.{json,msgpack} for every event that has no golden file of version N. `write_golden.py N`

Every field is filled, by its type, with a value of its own. A golden file is never rewritten: it is what old producers sent.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import msgspec
import numpy as np

from clipdrift_contract.columns import Column
from clipdrift_contract.events import Event
from clipdrift_contract.profile import SliceSpec

GOLDEN = Path(__file__).parent / "golden"
EVENT_TYPES: tuple[type[Any], ...] = get_args(Event)


def filled(kind: Any, name: str, numbers: Iterator[int]) -> Any:
    """A value of type `kind`, different from any default and from its neighbours."""
    if kind in _MADE:
        return _MADE[kind](name, numbers)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return inner[-1]
    if origin is UnionType:
        return filled(inner[0], name, numbers)
    if origin is tuple:
        return (filled(inner[0], name, numbers), filled(inner[0], name, numbers))
    if origin is dict:
        return {filled(inner[0], name, numbers): filled(inner[1], name, numbers)}
    return kind(**{field.name: filled(field.type, field.name, numbers) for field in msgspec.structs.fields(kind)})


_MADE: dict[Any, Callable[[str, Iterator[int]], Any]] = {
    Column: lambda name, numbers: Column.of(np.array([next(numbers), next(numbers)], "<f8")),
    SliceSpec: lambda name, numbers: SliceSpec(feature="origin", categories=("EWR", "JFK")),
    str: lambda name, numbers: f"{name} {next(numbers)}",
    int: lambda name, numbers: next(numbers),
    float: lambda name, numbers: next(numbers) + 0.5,
    bool: lambda name, numbers: False,
}


def example(kind: type[Any]) -> Any:
    """An event of this type with every field filled; always the same."""
    return filled(kind, kind.__name__, itertools.count(101))


def main(version: int) -> None:
    GOLDEN.mkdir(exist_ok=True)
    for kind in EVENT_TYPES:
        for ending, encode in (("json", msgspec.json.encode), ("msgpack", msgspec.msgpack.encode)):
            path = GOLDEN / f"{kind.__name__}-v{version}.{ending}"
            if not path.exists():
                path.write_bytes(encode(example(kind)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
