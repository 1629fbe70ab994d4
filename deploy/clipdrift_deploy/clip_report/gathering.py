"""The windows of one run and its end, from the project's bus or from a run's JSON Lines file."""

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.log import Bus
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import ConfigError, PoisonError
from clipdrift_contract.events import TRAINING, GradWindow, RunEnd
from clipdrift_deploy.project import Project
from clipdrift_trainer.recording.sinks.lines import LinesReader
from clipdrift_trainer.recording.sinks.sink import Telemetry

_POLL_SECONDS = 0.2


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one run. Windows are those of rank 0, each once, by step; there may be none of them."""

    run_id: str
    model: str
    windows: tuple[GradWindow, ...]
    end: RunEnd | None = None
    """None: the run goes on, or was killed, or its end was not recorded."""
    num_unreadable: int = 0
    """Lines of the file that were no event."""


def record_of(project: Callable[[], Project], target: str, run: str = "") -> RunRecord:
    """A run, wherever its windows are.

    Args:
        project: Opens the project; not called for a file.
        target: A JSON Lines file, or a model of the project.
        run: Version or run id, or how it begins; empty: the newest run.

    Raises:
        ConfigError: There is no such run.
    """
    if target.endswith(".jsonl") or Path(target).is_file():
        return from_file(Path(target), run)
    opened = project()
    opened.model(target)
    bus = connect(opened.bus_url)
    try:
        return from_bus(bus, target, run)
    finally:
        bus.close()


def from_file(path: Path, run: str = "") -> RunRecord:
    """A run in a JSON Lines file: the one whose version or run id begins with `run`, else the newest.

    Raises:
        ConfigError: The file cannot be read, or holds no such run.
    """
    reader = LinesReader(path)
    try:
        events = reader.read()
    except OSError as error:
        where = "" if path.exists() else "; trainings write theirs where [training.telemetry] jsonl_folder says"
        raise ConfigError(f"{path} cannot be read: {error.strerror}{where}") from error
    require_a_run(reader)
    return msgspec.structs.replace(pick(events, run, str(path)), num_unreadable=reader.num_unreadable)


def require_a_run(reader: LinesReader) -> None:
    """What was read was not all of another kind.

    Raises:
        ConfigError: There were lines, and none was an event of a training.
    """
    if reader.num_unreadable and not reader.num_events:
        raise ConfigError(f"there is no run in {reader.path}: none of its lines is an event of a training")


def from_bus(bus: Bus, model: str, run: str = "") -> RunRecord:
    """A run of `model` on the bus: the one whose version or run id begins with `run`, else the newest.

    Raises:
        ConfigError: There is no such run.
    """
    consumer = bus.consumer(None, (TRAINING,))
    events: list[Telemetry] = []
    try:
        while records := consumer.poll(500, _POLL_SECONDS):
            for record in records:
                try:
                    _, event = decode(record.headers, record.value)
                except PoisonError:  # the monitor parks and counts it
                    continue
                if isinstance(event, GradWindow | RunEnd) and event.model == model:
                    events.append(event)
    finally:
        consumer.close()
    return pick(events, run, f"the bus, for {model}")


def pick(events: Iterable[Telemetry], run: str, where: str) -> RunRecord:
    """One run among the events: the one whose version or run id begins with `run`; without a name, the newest that has ended,
    else the newest.

    Raises:
        ConfigError: There is no such run, or the name fits several.
    """
    windows: dict[str, dict[tuple[int, bool], GradWindow]] = {}
    ends: dict[str, RunEnd] = {}
    models: dict[str, str] = {}
    for event in events:
        models.pop(event.run_id, None)  # in the order of the last event
        models[event.run_id] = event.model
        if isinstance(event, RunEnd):
            ends[event.run_id] = event
        elif event.rank == 0:
            place = (event.step_first, event.num_steps > 0)  # a window of faults alone stands before its step's own
            known = windows.setdefault(event.run_id, {}).setdefault(place, event)
            if event.num_steps > known.num_steps:  # the run was cut short there, and went on
                windows[event.run_id][place] = event
    chosen = _choose(list(models), ends, run, where)
    kept = windows.get(chosen, {})
    return RunRecord(
        run_id=chosen, model=models[chosen], windows=tuple(kept[place] for place in sorted(kept)), end=ends.get(chosen)
    )


def _choose(runs: list[str], ends: dict[str, RunEnd], name: str, where: str) -> str:
    if not runs:
        raise ConfigError(f"there is no run in {where}; `clipdrift train` makes one")
    if not name:
        ended = [run for run in runs if run in ends]
        return (ended or runs)[-1]
    versions = {run: ends[run].version if run in ends else "" for run in runs}
    exact = [run for run in runs if name in (run, versions[run])]
    fitting = exact or [run for run in runs if run.startswith(name) or versions[run].startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(versions[run] or run for run in (fitting or runs)[-10:])
    problem = f"{len(fitting)} runs fit" if fitting else "no run has the version or run id"
    raise ConfigError(f"{problem} {name!r} in {where}; there are: {known}")
