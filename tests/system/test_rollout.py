"""A worse candidate that its gate has passed takes half of the requests: what is said of it is of its own answers, and it is
taken out and kept out, once, whatever is killed meanwhile.

The labels that the retrain learns from and is judged by are turned round in the north; those that come back later are right.
"""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from small_loop import PROGRAM, REPLAY_DAY, Loop, MakeLoop, clipdrift

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_monitor.rollout.course import PastRollout
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.store import Store
from clipdrift_trainer.export import score_rows

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]
MODEL = "steady"
CANARY_DAY = 6  # the first; by then the gate has newer days than the champion has seen
MIXED_UP = (sys.executable, str(Path(__file__).parent / "roles_mixed_up.py"))
Figures = dict[str, tuple[int, int, float]]  # rows, errors and summed Brier score, by side


@pytest.fixture(scope="session")
def spoiled(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained project: its labels spoiled from now on, and a candidate that has passed goes into a canary at once."""
    folder = tmp_path_factory.mktemp("spoiled") / "project"
    shutil.copytree(trained, folder)
    file = folder / "clipdrift.toml"
    text = file.read_text()
    for before, after in (
        ("{turn_day = 100000}", f"{{turn_day = 100000, spoil_day = {REPLAY_DAY + 1}}}"),
        ("steps = [0.5]", "has_shadow = false\nsteps = [0.5]"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    file.write_text(text)
    return folder


class Kills:
    """Ends monitor and then serving by kill -9 in the middle of a day; the client and the watcher start them again."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._num_asked = 0
        self.done: list[str] = []

    def __call__(self) -> None:
        self._num_asked += 1
        if self._num_asked in (5, 8):
            self.done.append("monitor" if self._num_asked == 5 else "serving")
            self._loop.running.kill("monitor" if self._num_asked == 5 else "serving")


def replay_into_canary(loop: Loop, *, is_disturbed: bool = False) -> None:
    """Up to the day after the first of the canary, whose labels are in by then and are weighed next."""
    kills = Kills(loop)
    loop.replay.await_first_versions([MODEL])
    for day in range(CANARY_DAY + 2):
        if day == CANARY_DAY:
            clipdrift(loop.project.folder, "retrain", MODEL, "--why", "the north looks odd")
            loop.replay.settle()
            loop.on_request += [kills] if is_disturbed else []
        if day == CANARY_DAY + 1:
            loop.on_request.clear()
        loop.live(day)
    assert kills.done == (["monitor", "serving"] if is_disturbed else [])


def state_of(loop: Loop) -> ModelState:
    with contextlib.closing(Store(loop.project.store_url)) as store:
        return msgspec.msgpack.decode(store.models()[MODEL], type=ModelState)


def told_by_the_monitor(loop: Loop) -> Figures:
    """What it has summed up of the first day of the canary, by side."""
    comparison = state_of(loop).comparison
    assert comparison is not None
    (period,) = [one for one in comparison.periods if one.start_ms == (REPLAY_DAY + CANARY_DAY) * MS_PER_DAY]
    found = {}
    for side in ("candidate", "champion"):
        rows, loss, _, errors, _ = np.frombuffer(getattr(period, side), "<f8").reshape(-1, 5).sum(axis=0)
        found[side] = (int(rows), int(errors), float(loss))
    return found


def counted_from_raw_rows(loop: Loop) -> Figures:
    """The same from the rows that the client got from each version, scored anew with that version's file."""
    stream, task = loop.streams[MODEL], loop.tasks[MODEL]
    in_order = [one for _, one in sorted(loop.story(MODEL).deployments.items())]
    champion, canary = in_order[-1].champion, in_order[-1].canary
    assert canary is not None
    found = {}
    for side, served in (("candidate", canary), ("champion", champion)):
        of_day_N = stream.rows.time_ms // MS_PER_DAY == REPLAY_DAY + CANARY_DAY
        rows = stream.rows.select(of_day_N & (stream.version_N == served.version))
        content = (loop.project.artifacts / MODEL / served.version / "model.onnx").read_bytes()
        score_N = score_rows(content, task.features, rows)[:, 1]
        found[side] = (len(rows), int(((score_N > 0.5) != rows.label).sum()), float(((score_N - rows.label) ** 2).sum()))
    return found


def assert_figures_are_of_their_own_rows(loop: Loop) -> None:
    told, counted = told_by_the_monitor(loop), counted_from_raw_rows(loop)
    for side, (rows, errors, loss) in counted.items():
        assert told[side] == (rows, errors, pytest.approx(loss, abs=0.01)), side


class Came(NamedTuple):
    """What came of the rollout."""

    rollouts: list[PastRollout]
    quarantine: list[str]
    deployments: list[tuple[int, str, str | None, str]]
    actions: list[tuple[str, str]]


def live_through(loop: Loop, *, is_disturbed: bool = False) -> Came:
    replay_into_canary(loop, is_disturbed=is_disturbed)
    assert_figures_are_of_their_own_rows(loop)
    for day in range(CANARY_DAY + 2, CANARY_DAY + 5):
        loop.live(day)
    state, story = state_of(loop), loop.story(MODEL)
    return Came(
        rollouts=state.past_rollouts,
        quarantine=state.quarantine,
        deployments=[
            (number, one.champion.digest, one.canary and one.canary.digest, one.stage)
            for number, one in sorted(story.deployments.items())
        ],
        actions=[(name, one.action) for name, one in story.decisions.items() if one.cause_key in story.requests],
    )


def test_a_worse_candidate_is_told_by_its_own_rows_taken_out_and_kept_out_whatever_is_killed(
    make_loop: MakeLoop, spoiled: Path
) -> None:
    quiet, disturbed = make_loop(MODEL, trained=spoiled), make_loop(MODEL, trained=spoiled)
    came, came_again = live_through(quiet), live_through(disturbed, is_disturbed=True)
    (_, champion, _, _), (_, _, candidate, stage), *_ = came.deployments

    assert came_again == came
    assert (stage, came.quarantine) == ("canary 0.5", [candidate])
    assert [one.end for one in came.rollouts] == ["rolled back"]
    assert [action for _, action in came.actions] == ["canary", "rollback"]
    assert came.deployments == [(1, champion, None, ""), (2, champion, candidate, "canary 0.5"), (3, champion, None, "")]
    for loop in (quiet, disturbed):
        last_day_N = loop.streams[MODEL].rows.time_ms // MS_PER_DAY == REPLAY_DAY + CANARY_DAY + 4
        assert loop.client.generation(MODEL) == 3
        assert len(set(loop.streams[MODEL].version_N[last_day_N])) == 1
        assert loop.client.num_errors == 0
        assert loop.get("/api/v1/audit/verify")["is_intact"] is True
        assert json.loads(clipdrift(loop.project.folder, "status", "--json"))[0]["rollout"] is None


def test_where_the_roles_are_mixed_up_that_is_found(make_loop: MakeLoop, spoiled: Path) -> None:
    assert MIXED_UP[0] == PROGRAM[0]
    loop = make_loop(MODEL, trained=spoiled, program=MIXED_UP)
    replay_into_canary(loop)

    told, counted = told_by_the_monitor(loop), counted_from_raw_rows(loop)
    assert told["candidate"][:2] == counted["champion"][:2], "the fault is there"
    with pytest.raises(AssertionError, match="candidate"):
        assert_figures_are_of_their_own_rows(loop)
