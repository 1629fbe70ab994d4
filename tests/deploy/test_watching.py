"""A running training on the terminal, from windows made by hand and from recorded ones."""

import io
import math

import pytest
from rich.console import Console

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ClipSpec, Fault, GradWindow, RunEnd
from clipdrift_deploy.watching import WatchedRun, file_source, follow, line, seconds_left, shown, sparkline, view, watch
from clipdrift_trainer.recording.sinks.lines import LinesSink

FAULT = Fault(kind="clip_after_step", step=50, num_steps=5, words="call clip before optimizer.step()")


def window(step: int, **changes: object) -> GradWindow:
    given = {
        "run_id": "abcdef0123456789", "model": "pump", "started_at_ms": step * 20, "ended_at_ms": step * 20 + 1_000,
        "step_first": step, "num_steps": 50, "num_clipped": 25, "norm_sum": 100.0 + step, "norm_removed_sum": 40.0,
        "loss_sum": 25.0, "learning_rate_sum": 5.0, "effective_learning_rate_sum": 3.0, "optimizer": "SGD",
        "clip": ClipSpec(kind="global_norm", max_norm=1.2),
    }  # fmt: skip
    return GradWindow(**(given | changes))


def run_end(run_id: str = "abcdef0123456789", num_steps: int = 200) -> RunEnd:
    return RunEnd(
        run_id=run_id, model="pump", version="v1", started_at_ms=0, ended_at_ms=9, data_start_ms=0, data_end_ms=1, as_of_ms=1,
        data_digest="d", code_revision="c", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=num_steps,
    )  # fmt: skip


def drawn(run: WatchedRun, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view(run, width=width))
    return console.file.getvalue()


def watched(*events: object, num_steps: int | None = 200) -> WatchedRun:
    run = WatchedRun(num_steps)
    for event in events:
        run.add(event)
    return run


def test_the_view_says_step_loss_norm_removed_mass_clip_rate_rates_and_time_left() -> None:
    text = drawn(watched(window(0), window(50)))
    figures = ("0.5", "3", "27%", "50%", "0.1", "0.06")
    for words in ("pump", "SGD, global norm", "run abcdef01", "100 of 200 steps", "2 s left", *figures):
        assert words in text
    assert "removed, whole run" in text
    assert "32%" in text
    assert "▁█" in text


def test_before_the_first_window_the_view_waits() -> None:
    assert "waiting for the first window" in drawn(WatchedRun())


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_width_breaks_the_view(width: int) -> None:
    run = watched(*(window(step, faults=(FAULT,)) for step in range(0, 5_000, 50)), num_steps=None)
    assert all(len(one) <= width for one in drawn(run, width).splitlines())


def test_a_fault_appears_once_with_all_its_steps() -> None:
    text = drawn(watched(window(0, faults=(FAULT,)), window(50, faults=(FAULT,))), width=140)
    assert text.count("clip after step") == 1
    assert "at step 50, 10 steps: call clip before optimizer.step()" in text


def test_more_faults_than_fit_are_counted() -> None:
    faults = tuple(Fault(kind="frozen_layer", step=0, num_steps=50, layer=f"block.{i}") for i in range(9))
    assert "and 3 faults more" in drawn(watched(window(0, faults=faults)))


def test_a_window_without_a_finite_step_is_shown() -> None:
    text = drawn(watched(window(0, num_nonfinite=50, norm_sum=0.0, loss_sum=0.0, norm_removed_sum=0.0)))
    assert "50 / 0" in text
    assert "no finite norm" in text


def test_words_of_a_model_are_no_markup() -> None:
    assert "[red]pump[/]" in drawn(watched(window(0, model="[red]pump[/]", optimizer="[/]")))


def test_a_new_run_begins_anew_and_the_old_ones_end_says_how_long_runs_are() -> None:
    run = watched(window(0, run_id="old"), window(50, run_id="old"), run_end("old", 300), window(0, faults=()), num_steps=None)
    assert (len(run.windows), run.end, run.num_steps) == (1, None, 300)
    assert run.removed_mass_ratio == pytest.approx(0.4)


def test_what_comes_twice_or_from_another_rank_counts_once() -> None:
    run = watched(window(0), window(50), window(50), window(100, rank=1))
    assert [one.step_first for one in run.windows] == [0, 50]


def test_the_whole_window_of_a_run_that_went_on_takes_the_place_of_the_one_that_was_cut_short() -> None:
    short = window(50, num_steps=38, norm_sum=90.0, norm_removed_sum=30.0, faults=(FAULT,))
    whole = window(50, norm_sum=120.0, norm_removed_sum=50.0, faults=(FAULT,))
    run, straight = watched(window(0), short, whole, short, window(100)), watched(window(0), whole, window(100))
    assert list(run.windows) == list(straight.windows)
    assert (run.norm_sum, run.norm_removed_sum, run.faults) == (
        straight.norm_sum, straight.norm_removed_sum, straight.faults
    )  # fmt: skip


def test_the_time_left_follows_the_pace_of_the_last_windows() -> None:
    slow = [window(0, started_at_ms=0, ended_at_ms=100_000)]
    quick = [window(50 * i, started_at_ms=100_000 + 1_000 * i, ended_at_ms=101_000 + 1_000 * i) for i in range(1, 21)]
    assert seconds_left(slow + quick, 2_000) == pytest.approx(950 / 50)
    after_a_pause = [window(1_050, started_at_ms=9_000_000, ended_at_ms=9_001_000)]
    assert seconds_left(slow + quick + after_a_pause, 2_000) == pytest.approx(900 / 50)
    assert seconds_left(slow, None) is None
    assert seconds_left([window(0, ended_at_ms=0)], 100) is None
    assert seconds_left([window(0)], 10) == 0


def test_a_spike_is_seen_however_many_windows_there_are() -> None:
    values = [1.0] * 1_000
    values[437] = 50.0
    bars = sparkline(values, 40)
    assert (len(bars), bars.count("█")) == (40, 1)
    assert sparkline([math.nan, 0.0, 1.0], 10) == "  ▁"


def test_lines_come_at_twentieths_and_with_each_new_fault_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO())
    with shown(console, WatchedRun(4_000)) as tell:
        for step in range(0, 4_000, 50):
            tell(window(step, faults=(FAULT,) if step >= 1_000 else ()))
    lines = console.file.getvalue().splitlines()
    assert sum(one.startswith("fault: clip after step") for one in lines) == 1
    assert len(lines) == 22
    assert lines[-1] == line(window(3_950), 4_000)


def test_on_a_terminal_the_last_view_stays() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with shown(console, WatchedRun(100)) as tell:
        tell(window(0))
        tell(window(50))
    assert "100 of 100 steps" in console.file.getvalue()


def test_a_file_is_followed_from_before_it_is_there_until_its_run_ends(tmp_path) -> None:
    path, console = tmp_path / "run.jsonl", Console(file=io.StringIO())
    sink, coming = LinesSink(path, clock=ManualClock()), [window(0), window(50), run_end()]

    def wait(_: float) -> None:  # instead of time passing, the next event comes
        sink.send([coming.pop(0)])

    run = WatchedRun(None)
    follow(file_source(path, wait), console, run, "run.jsonl")
    sink.close()
    assert (run.end, coming) == (run_end(), [])
    waiting = "waiting for the first window of run.jsonl ..."
    assert console.file.getvalue().splitlines() == [waiting, line(window(0)), line(window(50))]


def test_a_run_that_was_left_is_waited_for_with_the_moment_of_its_last_window(tmp_path) -> None:
    path, console = tmp_path / "run.jsonl", Console(file=io.StringIO())
    sink, coming = LinesSink(path, clock=ManualClock()), [run_end()]
    sink.send([window(0)])

    def wait(_: float) -> None:
        sink.send([coming.pop(0)])

    follow(file_source(path, wait), console, WatchedRun(None), "run.jsonl")
    sink.close()
    waiting = "waiting for the next window of run.jsonl; the last came at 1970-01-01 00:00 UTC ..."
    assert console.file.getvalue().splitlines() == [line(window(0)), waiting]


def test_a_folder_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        file_source(tmp_path / "nowhere" / "run.jsonl")


def test_a_run_is_followed_by_the_bus_of_its_project(make_project) -> None:
    project = make_project()
    project.state.mkdir(parents=True)
    bus = SqliteBus(project.state / "bus.db")
    publisher = EventPublisher(bus.publisher(), source="trainer", clock=ManualClock())
    for event in (window(0, model="other"), window(0, run_id="old"), run_end("old", 150), window(0), window(50), run_end()):
        publisher.publish(event)
    publisher.close()
    console = Console(file=io.StringIO())
    end = watch(lambda: project, "pump", console)
    bus.close()
    assert end == run_end()
    assert console.file.getvalue().splitlines() == [line(window(50), 200)]


def test_a_model_that_is_not_in_the_project_is_refused(make_project) -> None:
    with pytest.raises(ConfigError, match="no model 'pmup'"):
        watch(make_project, "pmup", Console(file=io.StringIO()))


def test_a_terminal_that_is_gone_does_not_end_the_training() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    with shown(Console(file=Gone()), WatchedRun(100)) as tell:
        tell(window(0))
        tell(window(50))
