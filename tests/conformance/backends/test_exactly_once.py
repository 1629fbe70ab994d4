"""One effective retrain for each cause, none lost and no run left behind, whatever is lost, late, repeated or killed."""

from collections import Counter

import pytest
from backend_places import NAMES
from schedules import POINTS, World

BACKENDS = ("local", *NAMES)
QUICK, ALL = 8, 200
MAX_ATTEMPTS = 3
KEYS = ("k1", "k2")


def check(world, key):
    """What must be so of any schedule."""
    row, runs = world.store.retrain(key), [run for run in world.ci.runs if run.key == key]
    effective = [job for job in world.trained if job.run.key == key and job.is_effective]
    assert row.state == "finished"
    if not world.may_repeat:  # the CI repeats nothing, and shows what it has in time
        attempts = Counter(run.attempt for run in runs if not run.is_deleted)
        assert max(attempts.values(), default=1) == 1, f"begun more than once: {attempts}"
    assert not [run for run in runs if run.state in ("queued", "running")], "a run is left behind"
    assert [one.verdict for one in world.concluded if one.key == key][-1] == row.outcome.verdict
    if row.outcome.verdict == "pass":
        assert row.run.state == "succeeded"
        assert len(effective) == 1, [(job.name, job.run.state) for job in effective]
        return
    assert not effective, "what a job found was dropped"  # given up: as often as is tried, each run died, hung or was lost
    assert len(row.run.past) == MAX_ATTEMPTS - 1, row.run
    assert len([run for run in runs if run.state in ("failed", "cancelled")]) >= MAX_ATTEMPTS


def live(folder, name, seed):
    world = World(folder, name, seed)
    world.go(KEYS)
    for key in KEYS:
        check(world, key)
    world.store.close()
    return world


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("seed", range(QUICK))
def test_a_cause_is_retrained_for_once(tmp_path, name, seed):
    live(tmp_path, name, seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BACKENDS)
def test_a_cause_is_retrained_for_once_in_200_schedules(tmp_path, name):
    points, num_kills, num_runs = set(), 0, 0
    for seed in range(ALL):
        folder = tmp_path / str(seed)
        folder.mkdir()
        world = live(folder, name, seed)
        num_kills += world.num_kills
        num_runs += len(world.ci.runs)
        points |= {world.dies_at} if world.dies_in <= 0 else set()
    print(f"{name}: {ALL} schedules, {num_kills} kills, {num_runs} runs of the CI for {ALL * len(KEYS)} causes")
    assert points == set(POINTS)  # the monitor was killed at each of them
    assert num_kills >= ALL // 2
