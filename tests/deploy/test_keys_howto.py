"""The how-to's keys are keys that let in what it says, and its settings are settings."""

import re
import shlex
import tomllib
from pathlib import Path

from clipdrift_contract.access.keys import ApiKeys
from clipdrift_contract.clock import ManualClock
from clipdrift_monitor.config import MonitorConfig

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "give-api-keys.md"


def test_each_key_of_the_howto_is_made_and_lets_in(clipdrift, tmp_path: Path) -> None:
    lines = re.findall(r"^\$ clipdrift (key .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        shown = clipdrift(*shlex.split(line)).stdout
        secret = next(word.strip() for word in shown.splitlines() if word.strip().startswith("clipdrift_"))
        file = tmp_path / "keys.toml"
        file.write_text(shown.partition("Add to the file of keys:")[2])
        keys = ApiKeys(ManualClock(now_ms=0), file)

        for scope in re.findall(r"--scope (\w+)", line):
            assert keys.check(f"Bearer {secret}".encode(), scope, "pump") == shlex.split(line)[1]


def test_the_settings_of_the_howto_are_settings() -> None:
    (settings,) = re.findall(r"```toml\n(\[monitor\]\n.*?)```", PAGE.read_text(), re.DOTALL)

    assert MonitorConfig(**tomllib.loads(settings)["monitor"]).does_reading_need_key
