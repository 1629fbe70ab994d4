"""The demo on the terminal: what it does at the moment, how far it is, what happened, and the table at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from clipdrift_deploy.demo.narration import Line
from clipdrift_deploy.demo.report import share_text
from clipdrift_deploy.demo.result import ModelResult, Result

_TONES = {"bad": "red", "busy": "yellow", "good": "green", "plain": "default"}


class Display:
    """A progress display with the story above it. A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}[/]"),
            console=console,
        )

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the display as it is; idempotent."""
        self._progress.stop()

    @contextmanager
    def phase(self, words: str, total: int = 1) -> Iterator["Phase"]:
        """A line of its own in the display, done when the block ends."""
        phase = Phase(self._progress, self._progress.add_task(words, total=total, note=""), total)
        if not self.console.is_terminal:
            self.console.print(f"{words} ...", highlight=False)
        began = time.monotonic()
        yield phase
        phase.finish()
        if not self.console.is_terminal:
            self.console.print(f"{words}: {time.monotonic() - began:.1f} s", highlight=False)

    def say(self, line: Line) -> None:
        """One event of the story."""
        what = f"[{_TONES[line.tone]}]{line.what}[/]" + (f"  [dim]{_escaped(line.why)}[/]" if line.why else "")
        is_terminal = self.console.is_terminal
        self.console.print(
            f"  {line.day:>13}  {line.model:<13} {what}",
            highlight=False,
            soft_wrap=not is_terminal,
            no_wrap=is_terminal,
            overflow="ellipsis",
            crop=is_terminal,
        )

    def show(self, result: Result) -> None:
        """The table by month and model, and the shares."""
        for name, model in result.models.items():
            self.console.print(_table(name, model))
            self.console.print(_verdict(model), highlight=False)


class Phase:
    """How far one phase is."""

    def __init__(self, progress: Progress, task: TaskID, total: int) -> None:
        self._progress = progress
        self._task = task
        self._total = total

    def advance(self, note: str = "") -> None:
        self._progress.update(self._task, advance=1, note=note)

    def move_to(self, done: int, note: str = "") -> None:
        self._progress.update(self._task, completed=done, note=note)

    def finish(self) -> None:
        self._progress.update(self._task, completed=self._total)


def _table(name: str, model: ModelResult) -> Table:
    table = Table(title=f"\n{name}", title_justify="left", title_style="bold", header_style="dim")
    table.add_column("month")
    table.add_column("flights", justify="right")
    for words in ("accuracy", "AUC", "log loss", "calibration"):
        table.add_column(f"{words}\nnever · [bold]loop[/] · oracle", justify="right")
    for month in model.months:
        cells = []
        for metric in ("accuracy", "auc", "nll", "ece"):
            stale, live, oracle = (getattr(life, metric) for life in (month.stale, month.live, month.oracle))
            cells.append(f"[dim]{_figure(stale)}[/] [bold]{_figure(live)}[/] {_figure(oracle)}")
        table.add_row(month.month, f"{month.n:,}", *cells)
    return table


def _figure(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _verdict(model: ModelResult) -> str:
    promoted = sum(retrain.promoted for retrain in model.retrains)
    by_rote, control = model.always, model.control
    return (
        f"recovered of what an oracle could: AUC [bold]{share_text(model.recovered_share, 'auc')}[/], "
        f"log loss [bold]{share_text(model.recovered_share, 'nll')}[/] with {promoted} promoted of {len(model.retrains)} "
        f"retrains\n  by rote every month: AUC {share_text(by_rote.recovered_share, 'auc')}, "
        f"log loss {share_text(by_rote.recovered_share, 'nll')} with {by_rote.num_retrains} retrains\n"
        f"clipping [bold]{model.diagnosis.replace('_', ' ')}[/]\n"
        f"control: {control.num_alarms} alarms, {control.num_retrains} retrains on {control.num_labels:,} labels"
    )


def closing_words(report: Path, address: str, project: Path, *, stays_open: bool) -> str:
    """Where to look now."""
    if stays_open:
        page = f"[bold]{address}[/] (Ctrl-C ends it)"
    else:
        page = f"[bold]clipdrift up --project {project}[/] opens it again; [bold]clipdrift demo --keep-open[/] leaves it open"
    return f"\nreport       [bold]{report}[/]\nstatus page  {page}"


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
