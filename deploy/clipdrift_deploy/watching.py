"""A running training on the terminal: what its windows say, drawn anew with each; plain lines where there is no terminal.

`view` and `line` make pictures of windows and know nothing of where they come from. `WatchedRun` keeps what they need of a run.
"""

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.log import Consumer
from clipdrift_contract.clock import format_moment
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import ConfigError, PoisonError
from clipdrift_contract.events import TRAINING, Fault, GradWindow, RunEnd
from clipdrift_deploy.clip_report.gathering import require_a_run
from clipdrift_deploy.project import Project
from clipdrift_trainer.recording.sinks.lines import LinesReader
from clipdrift_trainer.recording.sinks.sink import Telemetry

_log = logging.getLogger(__name__)
_KEPT_WINDOWS = 2_000
_PACE_WINDOWS = 20  # the time left follows the pace of the last so many windows
_BARS = "▁▂▃▄▅▆▇█"
_MOST_FAULTS = 6
_POLL_SECONDS = 0.5
Source = Callable[[], Sequence[Telemetry]]
"""Events since the last call, in order; may wait a little for them."""


class WatchedRun:
    """The newest run among the events that came: its last windows and what is summed over all of them.

    Args:
        num_steps: Planned steps; None: taken from the last finished run of the model, where there was one.
    """

    def __init__(self, num_steps: int | None = None) -> None:
        self.windows: deque[GradWindow] = deque(maxlen=_KEPT_WINDOWS)
        self.end: RunEnd | None = None
        self.norm_sum = 0.0
        self.norm_removed_sum = 0.0
        self.faults: dict[tuple[str, str], Fault] = {}
        """The first of each kind and layer, with the steps of all of them."""
        self._before_last = (0.0, 0.0, self.faults)
        self._given_steps = num_steps
        self._steps_before: dict[str, int] = {}

    @property
    def num_steps(self) -> int | None:
        """Planned steps; None where nobody knows."""
        if self._given_steps is not None or not self.windows:
            return self._given_steps
        return self._steps_before.get(self.windows[-1].model)

    @property
    def run_id(self) -> str:
        return self.windows[-1].run_id if self.windows else ""

    def add(self, event: Telemetry) -> None:
        """Take one event: a window of a new run begins anew, the end of another run only says how long runs are."""
        if isinstance(event, RunEnd):
            self._steps_before[event.model] = event.num_steps
            if event.run_id == self.run_id:
                self.end = event
            return
        if event.rank != 0:  # norms of a distributed run are global: each rank tells the same
            return
        if event.run_id != self.run_id:
            self.windows.clear()
            self.faults.clear()
            self.norm_sum = self.norm_removed_sum = 0.0
            self.end = None
        elif event.step_first < _done(self.windows[-1]):
            if event.step_first != self.windows[-1].step_first or event.num_steps <= self.windows[-1].num_steps:
                return  # it came before: sent again after an outage
            self._forget_last()  # the run was cut short there, and went on
        self._before_last = (self.norm_sum, self.norm_removed_sum, self.faults.copy())
        self.windows.append(msgspec.structs.replace(event, layers=(), groups=(), slices=()))
        self.norm_sum += event.norm_sum
        self.norm_removed_sum += event.norm_removed_sum
        for fault in event.faults:
            known = self.faults.get((fault.kind, fault.layer))
            num_steps = fault.num_steps + (known.num_steps if known else 0)
            self.faults[fault.kind, fault.layer] = msgspec.structs.replace(known or fault, num_steps=num_steps)

    def _forget_last(self) -> None:
        self.windows.pop()
        self.norm_sum, self.norm_removed_sum, self.faults = self._before_last

    @property
    def removed_mass_ratio(self) -> float:
        """Share of the norms that clipping took away, over all windows of the run."""
        return self.norm_removed_sum / self.norm_sum if self.norm_sum > 0 else 0.0


def view(run: WatchedRun, *, width: int = 80) -> RenderableType:
    """The run as a panel; one that waits where there is no window yet."""
    if not run.windows:
        return Panel(Text("waiting for the first window of steps ..."), title="training", title_align="left")
    last = run.windows[-1]
    parts: list[RenderableType] = [_progress(run), _figures(run), _norms(run, max(10, min(width, 120) - 30))]
    parts += _fault_lines(list(run.faults.values()))
    clip = "no clipping" if last.clip.kind == "off" else last.clip.kind.replace("_", " ")
    title = f"[bold]{escape(last.model)}[/]  {escape(last.optimizer)}, {escape(clip)}  [dim]run {escape(last.run_id[:8])}[/]"
    border = "red" if run.faults else "none"
    return Panel(Group(*parts), title=title, title_align="left", border_style=border)


def line(window: GradWindow, num_steps: int | None = None) -> str:
    """One window in one line.

    Example:
        >>> line(GradWindow(run_id="r", model="pump", started_at_ms=0, ended_at_ms=0, step_first=50, num_steps=50,
        ...                 num_clipped=25, norm_sum=100.0, norm_removed_sum=40.0, loss_sum=25.0, learning_rate_sum=5.0), 200)
        'training pump: 100 of 200 steps, loss 0.5, norm 2, removed 40%, clipped 50%, lr 0.1'
    """
    steps = f"{_done(window):,}" + ("" if num_steps is None else f" of {num_steps:,}")
    figures = [f"{name} {value}" for name, value in _window_figures(window).items()]
    return f"training {window.model}: {steps} steps, " + ", ".join(figures)


def fault_line(fault: Fault) -> str:
    """One fault in one line.

    Example:
        >>> fault_line(Fault(kind="clip_after_step", step=0, num_steps=50, words="clip before optimizer.step()"))
        'fault: clip after step, at step 0, 50 steps: clip before optimizer.step()'
    """
    where = f" in {fault.layer}" if fault.layer else ""
    words = f": {fault.words}" if fault.words else ""
    steps = "step" if fault.num_steps == 1 else "steps"
    return f"fault: {fault.kind.replace('_', ' ')}{where}, at step {fault.step:,}, {fault.num_steps:,} {steps}{words}"


def sparkline(values: Sequence[float], width: int) -> str:
    """Bars, one for each of at most `width` stretches of `values`; on a logarithmic scale, as norms are. A blank: no value.

    Example:
        >>> sparkline([1.0, 10.0, 100.0], 10), sparkline([2.0, 2.0], 10), sparkline([], 10)
        ('▁▅█', '▁▁', '')
    """
    stretches = _stretches(values, width)
    logs = [math.log(value) if 0 < value < math.inf else None for value in stretches]
    known = [value for value in logs if value is not None]
    if not known:
        return " " * len(logs)
    low, span = min(known), max(known) - min(known)
    top = len(_BARS) - 1
    return "".join(" " if one is None else _BARS[round(top * (one - low) / span) if span > 0 else 0] for one in logs)


def seconds_left(windows: Sequence[GradWindow], num_steps: int | None) -> float | None:
    """How long the run will take from its last window on, at the pace of its last windows; None where nobody can say."""
    recent = list(windows)[-_PACE_WINDOWS:]
    if num_steps is None or not recent:
        return None
    seconds = (
        sum(max(0, window.ended_at_ms - window.started_at_ms) for window in recent) / 1000
    )  # a pause between them is no pace
    steps = sum(window.num_steps for window in recent)
    return max(0, num_steps - _done(recent[-1])) * seconds / steps if seconds > 0 else None


@contextmanager
def shown(console: Console, run: WatchedRun) -> Iterator[Callable[[Telemetry], None]]:
    """Yields what to call with each event of `run`: a view that is drawn anew on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield _harmless(_Lines(console, run).tell)
        return
    with Live(view(run, width=console.width), console=console, refresh_per_second=4) as live:

        def tell(event: Telemetry) -> None:
            run.add(event)
            live.update(view(run, width=console.width))

        yield _harmless(tell)


def _harmless(tell: Callable[[Telemetry], None]) -> Callable[[Telemetry], None]:
    """A view that breaks (a terminal that is gone) must not end the training that it shows: it ends itself."""
    is_broken = False

    def tell_or_stop(event: Telemetry) -> None:
        nonlocal is_broken
        if is_broken:
            return
        try:
            tell(event)
        except Exception:  # noqa: BLE001
            is_broken = True
            _log.exception("the training goes on unseen")

    return tell_or_stop


class _Lines:
    """Some lines a run: at each twentieth of its steps where those are known, else at each window; and each new fault."""

    def __init__(self, console: Console, run: WatchedRun) -> None:
        self._console = console
        self._run = run
        self._told = -1
        self._run_id = ""
        self._faults: set[tuple[str, str]] = set()

    def tell(self, event: Telemetry) -> None:
        self._run.add(event)
        if self._run.run_id != self._run_id:
            self._run_id, self._told = self._run.run_id, -1
            self._faults.clear()
        for key, fault in self._run.faults.items():
            if key not in self._faults:
                self._faults.add(key)
                self._print(fault_line(fault))
        if not isinstance(event, GradWindow) or not self._run.windows:
            return
        num_steps, last = self._run.num_steps, self._run.windows[-1]
        part = _done(last) if num_steps is None else 20 * _done(last) // max(1, num_steps)
        if part > self._told:
            self._told = part
            self._print(line(last, num_steps))

    def _print(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)


def follow(source: Source, console: Console, run: WatchedRun, name: str) -> None:
    """Show the newest run of `source` until it ends; `name` says where it is looked for."""
    with shown(console, run) as tell:
        for event in source():  # what is there already: of finished runs only the newest is of interest
            run.add(event)
        for window in list(run.windows)[-1:]:
            tell(window)
        if run.end is None and not console.is_terminal:  # on a terminal there is a view
            console.print(escape(_awaited(run, name)), highlight=False, soft_wrap=True)
        while run.end is None:
            for event in source():
                tell(event)


def _awaited(run: WatchedRun, name: str) -> str:
    if not run.windows:
        return f"waiting for the first window of {name} ..."
    return f"waiting for the next window of {name}; the last came at {format_moment(run.windows[-1].ended_at_ms)} UTC ..."


def watch(project: Callable[[], Project], target: str, console: Console, num_steps: int | None = None) -> RunEnd | None:
    """Follow the training that `target` names until it ends: a JSON Lines file, or a model of the project by its bus.

    Neither the file nor any training need be there yet: it is said that it waits, and then it does, for ever.

    Raises:
        ConfigError: The file's folder is not there, the file cannot be read, or the project has no such model.
    """
    run = WatchedRun(num_steps)
    if target.endswith(".jsonl") or Path(target).is_file():
        follow(file_source(Path(target)), console, run, target)
        return run.end
    opened = project()
    opened.model(target)
    bus = connect(opened.bus_url)
    consumer = bus.consumer(None, (TRAINING,))
    try:
        follow(bus_source(consumer, target), console, run, target)
    finally:
        consumer.close()
        bus.close()
    return run.end


def file_source(path: Path, wait: Callable[[float], None] = time.sleep) -> Source:
    """Events of a JSON Lines file as it grows; it need not be there yet, its folder must."""
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}, so no training will write {path.name} there")
    reader = LinesReader(path)

    def read() -> Sequence[Telemetry]:
        try:
            events = reader.read()
        except FileNotFoundError:
            events = []
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        require_a_run(reader)
        if not events:
            wait(_POLL_SECONDS)
        return events

    return read


def bus_source(consumer: Consumer, model: str) -> Source:
    """Trainings of one model as they come over the bus; the first call gives all that is there already."""
    is_first = True

    def poll() -> Iterable[Telemetry]:
        for record in consumer.poll(500, _POLL_SECONDS):
            try:
                _, event = decode(record.headers, record.value)
            except PoisonError:  # the monitor parks and counts it
                continue
            if isinstance(event, GradWindow | RunEnd) and event.model == model:
                yield event

    def read() -> Sequence[Telemetry]:
        nonlocal is_first
        events = list(poll())
        while is_first and consumer.lag() > 0 and (more := list(poll())):
            events += more
        is_first = False
        return events

    return read


def _progress(run: WatchedRun) -> RenderableType:
    done, total = _done(run.windows[-1]), run.num_steps
    row = Table.grid(padding=(0, 2))
    if total is None:
        row.add_row(Text(f"{done:,} steps"), Text("ended" if run.end else ""))
        return row
    left = seconds_left(list(run.windows), total)
    words = "ended" if run.end or done >= total else "" if left is None else f"{duration(left)} left"
    bar = ProgressBar(total=total, completed=min(done, total), width=30)
    row.add_row(bar, Text(f"{done:,} of {total:,} steps"), Text(words))
    return row


def _figures(run: WatchedRun) -> RenderableType:
    last = run.windows[-1]
    table = Table.grid(padding=(0, 3))
    figures = _window_figures(last) | {"removed, whole run": f"{run.removed_mass_ratio:.0%}"}
    if last.num_nonfinite or last.num_skipped:
        figures["not finite / skipped"] = f"{last.num_nonfinite} / {last.num_skipped}"
    table.add_row(*(Text(name, style="dim") for name in figures))
    table.add_row(*(Text(value, style="bold") for value in figures.values()))
    return table


def _norms(run: WatchedRun, width: int) -> RenderableType:
    means = [_mean(window.norm_sum, window) for window in run.windows]
    finite = [norm for norm in means if 0 < norm < math.inf]
    scale = f"  {min(finite):.3g} to {max(finite):.3g}" if finite else "  no finite norm"
    return Text.assemble(("norm  ", "dim"), (sparkline(means, width), "cyan"), (scale, "dim"))


def _fault_lines(faults: Sequence[Fault]) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(fault_line(fault), style="red") for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        lines.append(Text(f"and {len(faults) - _MOST_FAULTS} faults more", style="red"))
    return lines


def _window_figures(window: GradWindow) -> dict[str, str]:
    num_finite = window.num_steps - window.num_nonfinite
    removed = window.norm_removed_sum / window.norm_sum if window.norm_sum > 0 else 0.0
    figures = {
        "loss": f"{_mean(window.loss_sum, window):.4g}",
        "norm": f"{_mean(window.norm_sum, window):.3g}",
        "removed": f"{removed:.0%}",
        "clipped": f"{window.num_clipped / num_finite:.0%}" if num_finite else "-",
        "lr": f"{window.learning_rate_sum / max(1, window.num_steps):.3g}",
    }
    if window.effective_learning_rate_sum:
        figures["effective lr"] = f"{_mean(window.effective_learning_rate_sum, window):.3g}"
    return figures


def _mean(total: float, window: GradWindow) -> float:
    """Over the finite steps; not a number where there is none."""
    num_finite = window.num_steps - window.num_nonfinite
    return total / num_finite if num_finite else math.nan


def _done(window: GradWindow) -> int:
    return window.step_first + window.num_steps


def _stretches(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values, each the largest finite one of its stretch: a spike is not averaged away."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    pieces = [values[start:end] for start, end in itertools.pairwise(edges)]
    return [max((value for value in piece if math.isfinite(value)), default=math.nan) for piece in pieces]


def duration(seconds: float) -> str:
    """
    Example:
        >>> duration(42.4), duration(192), duration(7_500)
        ('42 s', '3 min 12 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"
