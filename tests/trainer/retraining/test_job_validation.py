"""A retrain says which slices are worse than the model in service was validated at."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from test_job import World

from clipdrift_contract.events import RunEnd
from clipdrift_trainer.validation_file import VALIDATION_NAME


def hidden(world: World) -> set[tuple[str, str]]:
    world.run()
    run_end = next(event for _, event in world.events() if isinstance(event, RunEnd))
    return {(one.slice, one.against) for one in run_end.hidden_slices}


def test_slices_are_compared_with_the_validation_beside_the_file_in_service(tmp_path: Path) -> None:
    world = World(tmp_path)  # labels turn around on day 30, so no model of all days is as good as the one before

    assert hidden(world) == {("north", "in_service"), ("south", "in_service")}


def test_without_that_validation_nothing_is_compared(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "models" / world.champion.model / world.champion.version / VALIDATION_NAME).unlink()

    assert hidden(world) == set()
