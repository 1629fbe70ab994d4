"""One effective retrain for each cause, none lost and no run left behind, whatever is lost, late, repeated or killed."""

import pytest
from backend_places import NAMES
from schedules import POINTS, World

BACKENDS = ("local", *NAMES)
QUICK, ALL = 8, 200
MAX_ATTEMPTS = 3
KEYS = ("k1", "k2")


def check(world):
    """What must be so of any schedule."""
    by_key = {key: [one for one in world.concluded if one.key == key] for key in KEYS}
    for key in KEYS:
        row = world.store.retrain(key)
        runs = [run for run in world.ci.runs if run.key == key]
        assert row.state == "finished", key
        kept = [one for one in by_key[key] if one == row.outcome or one.verdict == row.outcome.verdict]
        assert kept, key
        if row.outcome.verdict != "pass":  # given up: only after so many runs have died or were lost
            assert len(row.run.past) == MAX_ATTEMPTS - 1, row.run
            assert sum(run.state == "failed" for run in runs) >= 1
        else:
            assert row.run.state == "succeeded"
            assert any(run.state == "succeeded" for run in runs)
        assert not [run for run in runs if run.state in ("queued", "running")]
    return by_key


def effective(world, key):
    """Jobs that had the key and trained to their end."""
    return [job for job in world.trained if job.run.key == key and job.run.state == "succeeded"]


def live(folder, name, seed):
    world = World(folder, name, seed)
    world.go(KEYS)
    check(world)
    for key in KEYS:
        if world.store.retrain(key).outcome.verdict == "pass":
            assert len(effective(world, key)) == 1, [(job.name, job.run.state) for job in world.trained]
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
