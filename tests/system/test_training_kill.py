"""kill -9 in the middle of a training, three times: the same weights and the same windows as without."""

import random
import signal
import subprocess
import sys
from functools import reduce
from pathlib import Path

import msgspec
import pytest
import torch
import training_that_dies
from training_that_dies import NUM_STEPS, STRETCH, train

from clipdrift_contract.events import GradWindow
from clipdrift_trainer.recording.sinks.sink import event_id
from clipdrift_trainer.recording.window import merge

pytestmark = [pytest.mark.system, pytest.mark.slow]


def live(folder: Path, kill_at: int | None) -> int:
    """One life of the training, ended as soon as it has got leave to go on from step `kill_at`; returns where it began."""
    command = [sys.executable, training_that_dies.__file__, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        asked_at = []
        for line in child.stdout:
            if line == "done\n":
                break
            asked_at.append(int(line.split()[1]))
            child.stdin.write("\n")
            child.stdin.flush()
            if kill_at is not None and asked_at[-1] >= kill_at:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == (0 if kill_at is None else -signal.SIGKILL)
    return asked_at[0]


def windows_in(folder: Path) -> list[GradWindow]:
    return [msgspec.json.decode(line, type=GradWindow) for line in (folder / "windows.jsonl").read_bytes().splitlines()]


def timeless(window: GradWindow) -> GradWindow:
    return msgspec.structs.replace(window, started_at_ms=0, ended_at_ms=0)


def test_a_training_that_is_killed_and_resumed_equals_one_that_is_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        train(whole)
    kills = sorted(random.Random(5).sample(range(STRETCH, NUM_STEPS, STRETCH), 3))
    began_at = [live(killed, kill_at) for kill_at in [*kills, None]]
    assert began_at[1:] == sorted(began_at[1:])
    assert all(first > 0 for first in began_at[2:]), "it began anew instead of going on"

    expected = torch.load(whole / "weights.pt", weights_only=True)
    for name, weight in torch.load(killed / "weights.pt", weights_only=True).items():
        assert torch.equal(weight, expected[name]), name
    told, reference = windows_in(killed), windows_in(whole)
    by_id = {event_id(window): timeless(window) for window in told}
    assert list(by_id.values()) == [timeless(window) for window in reference]
    for window in told:
        assert timeless(window) == by_id[event_id(window)], "told twice, and not alike"
    total = reduce(merge, by_id.values())
    assert (total.num_steps, total.num_ineffective, total.faults) == (NUM_STEPS, 0, ())
    assert total.num_checked > 0
    assert sum(one.num_samples for one in total.slices) == NUM_STEPS * 16
