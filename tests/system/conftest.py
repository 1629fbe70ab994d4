"""A trained project, copied afresh for each replay; the driver is in small_loop, which is put on the path here."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_loop import Loop, MakeLoop, Outcome, train_project


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a first version of each of its models; not to be changed."""
    return train_project(tmp_path_factory.mktemp("trained") / "project")


@pytest.fixture
def make_loop(trained: Path, tmp_path: Path) -> Iterator[MakeLoop]:
    """Starts serving and monitor of a copy of the project; ends them after the test."""
    made: list[Loop] = []

    def make(*models: str, **others: Any) -> Loop:
        made.append(Loop(others.pop("trained", trained), tmp_path / f"loop{len(made)}", models, **others))
        return made[-1]

    yield make
    for loop in made:
        loop.close()


@pytest.fixture(scope="session")
def finished(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop that has run to its end without a disturbance and still answers."""
    loop = Loop(trained, tmp_path_factory.mktemp("finished") / "loop", ("valve", "steady"))
    try:
        loop.run()
        yield loop
    finally:
        loop.close()


@pytest.fixture(scope="session")
def reference(finished: Loop) -> Outcome:
    """What the undisturbed loop came to."""
    return finished.outcome("valve")
