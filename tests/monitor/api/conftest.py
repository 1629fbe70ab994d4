"""Monitors with their HTTP interface."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dialogue import Dialogue

sys.path.insert(0, str(Path(__file__).parent))

from monitor_house import TOKEN, House

from clipdrift_monitor.api.access import Access


@pytest.fixture
def house_of(dialogue_of: Callable[..., Dialogue]) -> Callable[..., House]:
    """Makes a monitor that was told of some events, with its interface."""

    def make(
        *events: Any, token: str = TOKEN, command_seconds: float = 20.0, access: Access | None = None, **settings: Any
    ) -> House:
        dialogue = dialogue_of(**settings)
        dialogue.go(*events)
        return House(dialogue, token, command_seconds, access)

    return make
