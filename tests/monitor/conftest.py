"""A monitor in dialogue: events are told, turns are taken, what it says is looked at."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dialogue import Dialogue


@pytest.fixture
def dialogue_of(tmp_path: Path) -> Iterator[Callable[..., Dialogue]]:
    """Makes dialogues that are ended with the test; further ones share the folder's bus and store under another name."""
    with ExitStack() as stack:

        def make(name: str = "one", **settings: Any) -> Dialogue:
            (tmp_path / name).mkdir(exist_ok=True)
            return stack.enter_context(Dialogue(tmp_path / name, **settings))

        yield make


@pytest.fixture
def dialogue(dialogue_of: Callable[..., Dialogue]) -> Dialogue:
    return dialogue_of()
