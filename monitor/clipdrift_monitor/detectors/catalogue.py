"""Which detectors there are by name, and those that a user brings: a class in a file, or an entry point."""

import importlib.util
import sys
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.detectors.binned import ChiSquare, GTest, JensenShannon, StabilityIndex
from clipdrift_monitor.detectors.detector import Bins, Detector, Drift
from clipdrift_monitor.detectors.ordered import KolmogorovSmirnov, Wasserstein

ENTRY_POINTS = "clipdrift.detectors"
BUILT_IN: tuple[Detector, ...] = (
    JensenShannon(),
    StabilityIndex(),
    ChiSquare(),
    GTest(),
    KolmogorovSmirnov(),
    Wasserstein(),
)
_KINDS = frozenset(("ordered", "unordered"))
_HOWTO = "docs/howto/write-a-detector.md shows a whole one"


@lru_cache(maxsize=64)
def detector_of(name: str) -> Detector:
    """The detector of a name: one that is built in, `FILE.py:CLASS`, or an installed entry point. Files are read once.

    Raises:
        ConfigError: There is none, or it is not what the monitor can use; the message says what to do.

    Example:
        >>> detector_of("ks").min_effect
        0.1
    """
    built_in = {one.name: one for one in BUILT_IN}
    if name in built_in:
        return built_in[name]
    if name.startswith("evidently:"):
        raise ConfigError(
            f"policy.drift: {name!r} reads rows and not bins; name it under `rows`, which are compared in a process of its own"
        )
    if ":" in name:
        return _tried(_from_file(name), name)
    found = next((one for one in entry_points(group=ENTRY_POINTS) if one.name == name), None)
    if found is None:
        raise ConfigError(
            f"policy.drift: there is no detector {name!r}; built in are {', '.join(sorted(built_in))}; one of your own is "
            f"named FILE.py:CLASS, or is an entry point of the group {ENTRY_POINTS}"
        )
    try:
        made = found.load()
    except Exception as error:  # whatever somebody's package raises while it loads is the message
        raise ConfigError(f"policy.drift: the entry point {name!r} cannot be loaded: {_words(error)}") from error
    return _tried(_made(made, name), name)


def _from_file(name: str) -> Any:
    file, _, class_name = name.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not class_name.isidentifier():
        raise ConfigError(f"policy.drift: a detector of your own is named FILE.py:CLASS, got {name!r}")
    if not path.is_file():
        raise ConfigError(f"policy.drift: there is no file {path.absolute()} for the detector {name!r}")
    module = _load(path.resolve(), name)
    if not hasattr(module, class_name):
        classes = ", ".join(
            word for word, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__
        )
        raise ConfigError(f"policy.drift: {path} has no class {class_name!r}; it has: {classes or 'none'}")
    return _made(getattr(module, class_name), name)


def _load(path: Path, name: str) -> ModuleType:
    module_name = f"clipdrift_detector_of_{path.stem}"  # never the name of a module that is in use
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises while it loads is the message
        raise ConfigError(f"policy.drift: {path} of the detector {name!r} cannot be loaded: {_words(error)}") from error
    return module


def _made(found: Any, name: str) -> Any:
    if not isinstance(found, type):
        return found
    try:
        return found()
    except Exception as error:
        raise ConfigError(
            f"policy.drift: {name!r} cannot be made without arguments ({_words(error)}); give each a default"
        ) from error


def _tried(detector: Any, name: str) -> Detector:
    """The detector, after it has answered once: what is wrong is said at the start and not in the first night."""
    for what in ("name", "kinds", "min_effect", "compare"):
        if not hasattr(detector, what):
            raise ConfigError(f"policy.drift: the detector {name!r} has no {what!r}; {_HOWTO}")
    if not detector.kinds or not set(detector.kinds) <= _KINDS:
        raise ConfigError(f"policy.drift: kinds of {name!r} must be of {', '.join(sorted(_KINDS))}, got {detector.kinds!r}")
    if any(one.name == detector.name for one in BUILT_IN):
        raise ConfigError(
            f"policy.drift: {name!r} has the name of a detector that is built in, {detector.name!r}; give it another"
        )
    bins = Bins(np.array([60.0, 30.0, 10.0]), np.array([10.0, 30.0, 60.0]), kind=min(detector.kinds))
    try:
        drift = detector.compare(bins)
    except Exception as error:
        raise ConfigError(f"policy.drift: {name!r} failed on three bins, {_words(error)}; {_HOWTO}") from error
    if not isinstance(drift, Drift):
        raise ConfigError(f"policy.drift: compare of {name!r} must give a Drift, got {type(drift).__name__}; {_HOWTO}")
    if not (np.isfinite(drift.score) and drift.score >= 0 and 0 <= drift.p_value <= 1):
        raise ConfigError(f"policy.drift: {name!r} must give a score >= 0 and a p_value in 0..1, got {drift}; {_HOWTO}")
    checked: Detector = detector
    return checked


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
