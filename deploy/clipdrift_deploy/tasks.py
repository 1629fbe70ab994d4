"""Loads the user's task class out of the project's folder."""

import importlib.util
import sys
from types import ModuleType

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.project import FILE_NAME, Project
from clipdrift_trainer.tasks.task import Task


def load_task(project: Project, model: str) -> Task:
    """The task of `model`, made with its options.

    Raises:
        ConfigError: The module or class is not there, or the class refuses its options; the message says which.
    """
    section = project.model(model)
    where = f"models.{model} in {project.folder / FILE_NAME}"
    module_name, separator, class_name = section.task.partition(":")
    if not separator:
        raise ConfigError(f"{where}: task must be module:Class, got {section.task!r}")
    task_class = getattr(_load_module(project, module_name, where), class_name, None)
    if task_class is None:
        raise ConfigError(f"{where}: {module_name}.py has no class {class_name!r}")
    try:
        task: Task = task_class(**section.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {class_name} refuses its options: {error}") from error
    return task


def _load_module(project: Project, name: str, where: str) -> ModuleType:
    path = project.folder / f"{name.replace('.', '/')}.py"
    if not path.exists():
        raise ConfigError(f"{where}: there is no {path}")
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{where}: {path.name} has the name of a module of Python's own; give it another")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a worker process finds the class again under this name
    if str(project.folder) not in sys.path:
        sys.path.insert(0, str(project.folder))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises while it loads is the message
        raise ConfigError(f"{where}: {path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
