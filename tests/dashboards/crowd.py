"""The synthetic month under hundreds of names: one model in ten goes the way of the harmed one, the others stay well.

Days are filled up to finer scrapes: counters run on evenly between two days, gauges stand with a little noise, so that chunks
are as long as those of a live monitor.
"""

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import synthetic_month

from clipdrift_deploy.scrape_log import ScrapeLog

Floats = npt.NDArray[np.float64]
HARMED_EVERY = 10
_OF_PARTS = ('slice="', 'feature="', 'group="')


def write(
    path: Path,
    *,
    num_models: int,
    num_features: int,
    num_slices: int,
    scrape_seconds: int,
    parts_seconds: int,
    only: Collection[str] = (),
) -> tuple[int, int]:
    """Write the month as one OpenMetrics file.

    Args:
        path: The file.
        num_models: How many names.
        num_features: Inputs of each model.
        num_slices: Slices of each model, beside the whole.
        scrape_seconds: Time between two samples of what is told of a model, of serving and of training.
        parts_seconds: The same of what is told of a single slice, input or layer.
        only: Metrics by the names of their series; empty: all.

    Returns:
        How many series and samples were written.
    """
    dice = np.random.default_rng(1)
    num_series = num_samples = 0
    with path.open("w", encoding="utf-8") as file:
        for name, family in _families(num_features, num_slices).items():
            if only and not any(one.startswith(name) for one in only):
                continue
            head = family.lines(name)
            file.writelines((next(head), next(head)))
            for group in family._groups():
                for series_model, models in _named(group, num_models):
                    every = scrape_seconds if '"' not in group[0][0] or not _is_part(group[0][0]) else parts_seconds
                    filled = [_filled(series, family.type, every, dice) for _, series in group]
                    for model in models:
                        names = [one.replace(f'model="{series_model}"', f'model="{model}"') for one, _ in group]
                        num_series += len(names)
                        num_samples += _write_group(file, names, filled)
        file.write("# EOF\n")
    return num_series, num_samples


def model_name(index: int) -> str:
    """
    >>> model_name(7)
    'model-007'
    """
    return f"model-{index:03d}"


def _is_part(series: str) -> bool:
    return any(label in series and f'{label}"' not in series for label in _OF_PARTS)


def _families(num_features: int, num_slices: int) -> dict[str, Any]:
    """The synthetic month, series by series."""
    kept = synthetic_month.FEATURES, synthetic_month.SLICES
    synthetic_month.FEATURES = tuple(f"input {index}" for index in range(num_features))
    synthetic_month.SLICES = ("", *(f"slice {index}" for index in range(num_slices)))
    log = ScrapeLog(Path(tempfile.gettempdir()) / "not written")
    try:
        for text, time_ms in synthetic_month.expositions():
            log.add(text, time_ms)
    finally:
        synthetic_month.FEATURES, synthetic_month.SLICES = kept
    return {name: family for name, family in log._families.items() if family.series}


def _named(group: list[tuple[str, Any]], num_models: int) -> Iterator[tuple[str, list[str]]]:
    """The model that a group of series is of, and the names that it gets; nothing is of no model, once."""
    everybody = [model_name(index) for index in range(num_models)]
    for model in (synthetic_month.HARMED, synthetic_month.WELL):
        if f'model="{model}"' in group[0][0]:
            is_harmed = model == synthetic_month.HARMED
            yield model, [one for index, one in enumerate(everybody) if (index % HARMED_EVERY == 0) == is_harmed]
            return
    yield "", [""]


def _filled(series: Any, kind: str, every_seconds: int, dice: np.random.Generator) -> tuple[list[str], list[str]]:
    """Values and times as text, with a sample each `every_seconds`."""
    days, values = np.array(series.times_ms) / 1000.0, np.array(series.values)
    first = days[0] - 86_400 + every_seconds if days[0] == synthetic_month.START_MS / 1000 + 86_400 else days[0]
    times = np.arange(first, days[-1] + 1, every_seconds)
    if kind in ("counter", "histogram"):
        found = np.interp(times, days, values)
        found = np.floor(found) if np.all(values == np.floor(values)) else found
    else:
        found = values[np.minimum(np.searchsorted(days, times), len(days) - 1)]
        if not np.all(values == np.floor(values)):
            found = found * (1 + 0.003 * dice.standard_normal(len(found)))
    return [repr(one) for one in found.tolist()], [f" {one:.0f}\n" for one in times.tolist()]


def _write_group(file: Any, names: list[str], filled: list[tuple[list[str], list[str]]]) -> int:
    if len(names) == 1:
        ((values, times),) = filled
        name = names[0] + " "
        file.writelines([name + value + time for value, time in zip(values, times, strict=True)])
        return len(values)
    times = filled[0][1]
    for row in range(len(times)):
        file.writelines([f"{name} {values[row]}{own[row]}" for name, (values, own) in zip(names, filled, strict=True)])
    return len(times) * len(names)
