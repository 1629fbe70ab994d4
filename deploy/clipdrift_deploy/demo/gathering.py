"""Collects, when the replay is over, what the result and the report are made of."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec
import numpy as np

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Deployment
from clipdrift_deploy.demo.client import ServingClient
from clipdrift_deploy.demo.figures import Month, months_of
from clipdrift_deploy.demo.lives import MonthScores
from clipdrift_deploy.demo.narration import Line, day_of, tell_in_order
from clipdrift_deploy.demo.plots import Shadow, Traffic
from clipdrift_deploy.demo.report import Link, ReportModel
from clipdrift_deploy.demo.result import (
    Control,
    Facts,
    Result,
    Scores,
    Worth,
    count_accuracy,
    live_accuracy_error,
    model_result,
)
from clipdrift_deploy.demo.setting import Setting
from clipdrift_deploy.demo.story import Listener, Story
from clipdrift_deploy.demo.traffic import Stream
from clipdrift_deploy.demo.watcher import MonitorWatcher
from clipdrift_deploy.project import Project
from clipdrift_monitor.evidence.order import paths_of
from clipdrift_monitor.risk.severity import KIND_WORDS
from clipdrift_trainer.export import score_rows
from clipdrift_trainer.profiling import slice_index, slice_names

Counts = dict[tuple[str, str, str], tuple[int, int]]


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to say, but for how long it took."""

    num_predictions: int
    num_labels: int
    serving_errors: int
    live_accuracy_error: float
    facts: dict[str, Facts]
    reports: dict[str, ReportModel]

    def result(self, wall_seconds: float) -> Result:
        return Result(
            wall_seconds=wall_seconds,
            num_predictions=self.num_predictions,
            num_labels=self.num_labels,
            serving_errors=self.serving_errors,
            live_accuracy_error=self.live_accuracy_error,
            models={name: model_result(facts) for name, facts in self.facts.items()},
        )


def gather(
    setting: Setting,
    main: Sequence[Stream],
    control: Sequence[Stream],
    client: ServingClient,
    watcher: MonitorWatcher,
    listener: Listener,
    lives: Mapping[tuple[str, str], MonthScores],
) -> Gathered:
    """Ask the monitor for its counts, score what was replaced, and sort it all by model."""
    streams = [*main, *control]
    told = {stream.model: watcher.worths(stream.model) for stream in main}
    facts = {
        stream.model: msgspec.structs.replace(
            _facts(setting, stream, listener.stories[stream.model], silence, listener, lives),
            worths={key: Worth(verdict=one["verdict"], words=one["words"]) for key, one in told[stream.model].items()},
        )
        for stream, silence in zip(main, control, strict=True)
    }
    return Gathered(
        num_predictions=sum(stream.num_answered for stream in streams),
        num_labels=sum(stream.num_labels for stream in streams),
        serving_errors=client.num_errors,
        live_accuracy_error=_live_accuracy_error(setting, streams, watcher),
        facts=facts,
        reports={model: _report_model(setting, model, one) for model, one in facts.items()},
    )


def _facts(
    setting: Setting,
    stream: Stream,
    story: Story,
    silence: Stream,
    listener: Listener,
    lives: Mapping[tuple[str, str], MonthScores],
) -> Facts:
    first, *replaced = _versions(story)
    shadowed = {one.champion.version: _score(setting, one) for one in (first, *replaced)}
    quiet = listener.stories[silence.model]
    return Facts(
        label_N=setting.rows.label,
        time_ms=setting.rows.time_ms,
        live_NK=stream.scores_NK.astype(np.float64),
        stale_NK=shadowed[first.champion.version],
        version_N=stream.version_N,
        story=story,
        months=setting.months,
        lives={month.name: lives[stream.model, month.name] for month in setting.months},
        shadowed=shadowed,
        control=Control(num_labels=silence.num_labels, num_alarms=len(quiet.alarms), num_retrains=len(quiet.requests)),
    )


def _versions(story: Story) -> list[Deployment]:
    """The first version in service, and then those that were later replaced by another."""
    return story.came_into_service[:-1] or story.came_into_service


def _score(setting: Setting, deployment: Deployment) -> Scores:
    content = Path(url2pathname(urlsplit(deployment.champion.uri).path)).read_bytes()
    return score_rows(content, setting.task.features, setting.rows)


def _live_accuracy_error(setting: Setting, streams: Sequence[Stream], watcher: MonitorWatcher) -> float:
    told: Counts = {}
    counted: Counts = {}
    for stream in streams:
        months = months_of(stream.rows.time_ms)
        names = slice_names(setting.task)
        slice_N = slice_index(setting.task, stream.rows)
        counted |= count_accuracy(stream.model, stream.scores_NK, stream.rows.label, slice_N, names, months)
        for name, start_ms, end_ms in _periods(months):
            answer = watcher.accuracy(stream.model, start_ms, end_ms)
            told |= {(stream.model, name, of_slice): counts for of_slice, counts in answer.items()}
    return live_accuracy_error(told, counted)


def _periods(months: Sequence[Month]) -> list[tuple[str, int, int]]:
    whole = ("", months[0].start_ms, months[-1].end_ms)
    return [*((month.name, month.start_ms, month.end_ms) for month in months), whole]


def _report_model(setting: Setting, model: str, facts: Facts) -> ReportModel:
    run = next(iter(facts.story.runs.values()))
    learner = f"{run.optimizer} at a learning rate of {run.learning_rate:g}, {run.num_steps:,} steps"
    removed = f"clipping removed {run.removed_mass_ratio:.0%} of the gradient norm in its first training"
    return ReportModel(
        words=f"{learner}; {removed}.",
        story=facts.story,
        lines=tuple(_lines(facts.story)),
        evidence=tuple(_evidence(setting.project, facts.story)),
        swaps=tuple(_in_months(one.decided_at_ms, setting.months[0]) for one in facts.story.came_into_service[1:]),
        traffic=_traffic(facts, setting.months[0]),
    )


def evidence_folder(project: Project) -> Path:
    """Where the monitor's evidence packs lie."""
    return project.state / "evidence"


def _evidence(project: Project, story: Story) -> Iterator[Link]:
    """The evidence packs that were made for a model's alarms."""
    for signal in story.signals.values():
        path = paths_of(evidence_folder(project), signal.signal_id).html
        if path.exists():
            words = f"{day_of(signal.window_start_ms)}, {KIND_WORDS[signal.kind]}"
            yield Link(words=words, path=path.relative_to(project.folder.parent).as_posix())


def _lines(story: Story) -> list[Line]:
    """The whole story of a model."""
    kept = (story.signals, story.decisions, story.requests, story.outcomes, story.deployments)
    champions = {(one.model, one.generation): one.champion.version for one in story.deployments.values()}
    return tell_in_order([event for events in kept for event in events.values()], story.requests, champions)


def _traffic(facts: Facts, first: Month) -> Traffic:
    """Who answered which share of each day's requests, and who answered unseen beside it."""
    day_N = facts.time_ms // MS_PER_DAY
    days = np.unique(day_N).tolist()
    versions = [one for one in dict.fromkeys(facts.version_N.tolist()) if one]
    bounds_D = np.searchsorted(day_N, [*days, days[-1] + 1])
    shares = {
        version: tuple(float((facts.version_N[a:b] == version).mean()) for a, b in itertools.pairwise(bounds_D.tolist()))
        for version in versions
    }
    in_order = facts.story.in_order
    ends_ms = [*(one.decided_at_ms for one in in_order[1:]), int(facts.time_ms[-1])]
    shadows = tuple(
        Shadow(version=one.shadow.version, start=_in_months(one.decided_at_ms, first), end=_in_months(end_ms, first))
        for one, end_ms in zip(in_order, ends_ms, strict=True)
        if one.shadow is not None
    )
    return Traffic(days=tuple(_in_months(day * MS_PER_DAY, first) for day in days), shares=shares, shadows=shadows)


def _in_months(time_ms: int, first: Month) -> float:
    """Months since the start of `first`, with the fraction of the present one."""
    moment, start = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (time_ms, first.start_ms))
    return (moment.year - start.year) * 12 + moment.month - start.month + (moment.day - 1) / 31
