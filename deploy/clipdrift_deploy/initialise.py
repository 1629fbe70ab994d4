"""Writes a first project that works as it is: a task, its data, a script that sends traffic."""

import csv
import shutil
from importlib import resources
from pathlib import Path

import numpy as np

from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.project import FILE_NAME

NUM_TRAINING_DAYS = 40
NUM_REPLAY_DAYS = 75
ROWS_A_DAY = 400
OTHER_MAKE_DAYS = 5
STATES = ("fine", "worn", "failing")
SITES = ("harbour", "north", "south")


def initialise(folder: Path, now_ms: int, *, force: bool = False) -> tuple[Path, ...]:
    """Write the starter project into `folder`; returns the files written.

    The data are made up (seeded): pumps at three sites, whose state a mechanic finds out some hours later. Five days after
    training ends the harbour gets pumps of another make, whose vibration means something else.

    Raises:
        ConfigError: The folder cannot be made, or a file is there already and `force` was not given.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); give another folder") from error
    template = resources.files("clipdrift_deploy") / "template"
    names = (FILE_NAME, "task.py", "send.py")
    there = [name for name in (*names, "data.csv") if (folder / name).exists()]
    if there and not force:
        raise ConfigError(f"{folder.resolve()} already has {', '.join(there)}; give another folder, or --force to overwrite")
    for name in names:
        with resources.as_file(template / name) as source:
            shutil.copyfile(source, folder / name)
    today_ms = now_ms // MS_PER_DAY * MS_PER_DAY
    split_ms = today_ms - NUM_REPLAY_DAYS * MS_PER_DAY
    write_pump_data(folder / "data.csv", first_ms=split_ms - NUM_TRAINING_DAYS * MS_PER_DAY)
    (folder / "replay_from_ms.txt").write_text(str(split_ms))
    return tuple(folder / name for name in (*names, "data.csv", "replay_from_ms.txt"))


def split_moment_ms(folder: Path) -> int:
    """Where the starter project's training data end and its traffic begins."""
    return int((folder / "replay_from_ms.txt").read_text())


def write_pump_data(path: Path, first_ms: int, seed: int = 0) -> None:
    """Write the made-up readings as CSV, in time order, labels 1 to 20 hours later."""
    generator = np.random.default_rng(seed)
    num_rows = (NUM_TRAINING_DAYS + NUM_REPLAY_DAYS) * ROWS_A_DAY
    day_N = np.arange(num_rows) // ROWS_A_DAY
    time_N = first_ms + np.sort(generator.integers(0, MS_PER_DAY, (num_rows // ROWS_A_DAY, ROWS_A_DAY)), axis=1).ravel()
    time_N += day_N * MS_PER_DAY
    site_N = generator.choice(len(SITES), num_rows, p=(0.5, 0.3, 0.2))
    wear_N = generator.gamma(2.0, 1.0, num_rows)
    state_N = np.digitize(wear_N + generator.normal(0, 0.35, num_rows), (2.2, 4.0))
    other_make_N = (site_N == 0) & (day_N >= NUM_TRAINING_DAYS + OTHER_MAKE_DAYS)
    vibration_N = np.where(other_make_N, 6.0 - wear_N, wear_N) + generator.normal(0, 0.5, num_rows)
    vibration_N[generator.random(num_rows) < 0.02] = np.nan
    pressure_N = 8.0 - 0.4 * wear_N + generator.normal(0, 0.8, num_rows)
    temperature_N = 40.0 + 2.0 * wear_N + 3.0 * (site_N == 0) + generator.normal(0, 4.0, num_rows)
    delay_N = generator.integers(MS_PER_HOUR, 20 * MS_PER_HOUR, num_rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("time_ms", "label_time_ms", "site", "pressure", "vibration", "temperature", "state"))
        for i in range(num_rows):
            vibration = "" if np.isnan(vibration_N[i]) else f"{vibration_N[i]:.3f}"
            writer.writerow(
                (time_N[i], time_N[i] + delay_N[i], SITES[site_N[i]], f"{pressure_N[i]:.3f}", vibration,
                 f"{temperature_N[i]:.2f}", STATES[state_N[i]])
            )  # fmt: skip
