"""Loading the user's class: found by file, made with its options, and refused in words that say what to change."""

import sys

import msgspec
import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.tasks import load_task
from clipdrift_trainer.tasks.task import Task


def with_section(project, **changes):
    section = msgspec.structs.replace(project.file.models["pump"], **changes)
    return msgspec.structs.replace(project, file=msgspec.structs.replace(project.file, models={"pump": section}))


def test_the_class_is_made_with_its_options(make_project) -> None:
    task = load_task(with_section(make_project(), options={"breaks_at": "never"}), "pump")

    assert isinstance(task, Task)
    assert task.breaks_at == "never"


def test_the_class_is_found_again_by_its_module_so_that_worker_processes_can_have_it(make_project) -> None:
    task = load_task(make_project(), "pump")

    assert sys.modules[type(task).__module__].Small is type(task)


def test_a_module_may_import_its_neighbours(make_project) -> None:
    project = make_project()
    (project.folder / "neighbour_of_small.py").write_text("from small_task import Small\nclass Other(Small):\n    pass\n")

    assert type(load_task(with_section(project, task="neighbour_of_small:Other"), "pump")).__name__ == "Other"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "small_task"}, "task must be module:Class, got 'small_task'"),
        ({"task": "absent:Small"}, "there is no .*absent.py"),
        ({"task": "small_task:Smal"}, "small_task.py has no class 'Smal'"),
        ({"options": {"colour": "red"}}, "Small refuses its options: .*colour"),
    ],
)
def test_what_is_wrong_in_the_section_is_said(make_project, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"models\.pump in .*clipdrift\.toml: .*{words}"):
        load_task(with_section(make_project(), **changes), "pump")


def test_a_file_that_cannot_be_loaded_says_what_it_raised(make_project) -> None:
    with pytest.raises(ConfigError, match=r"small_task\.py cannot be loaded: ZeroDivisionError"):
        load_task(make_project(task="1 / 0\n"), "pump")


def test_a_file_named_like_a_module_of_pythons_own_is_refused_and_shadows_nothing(make_project) -> None:
    project = make_project()
    (project.folder / "json.py").write_text("class Small:\n    pass\n")

    with pytest.raises(ConfigError, match="give it another"):
        load_task(with_section(project, task="json:Small"), "pump")
    assert hasattr(sys.modules["json"], "dumps")
