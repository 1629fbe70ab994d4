"""Writes the report of an ablation: one HTML file that needs no server, no network and no script."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.files import write_whole
from clipdrift_deploy.ablation_report import plots, rows
from clipdrift_trainer.ablation.grid import PRESENT
from clipdrift_trainer.ablation.result import AblationResult, ArmFigures

_TONES = {"use": "good", "keep": "plain", "does_not_matter": "plain", "cannot_tell": "busy"}
_TITLES = {
    "use": "another policy is better",
    "keep": "keep what you have",
    "does_not_matter": "clipping does not matter here",
    "cannot_tell": "cannot tell yet",
}


def write_report(path: Path, result: AblationResult) -> None:
    """Write the report of `result` to `path`.

    Raises:
        ClipdriftError: The file cannot be written.
    """
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, folder.parent]), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(**_contents(result))
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise ClipdriftError(f"{path} cannot be written ({error.strerror}); make room and start again") from error


def _contents(result: AblationResult) -> dict[str, Any]:
    advice = result.recommendation
    has_later = any(one.later is not None for one in result.arms)
    return {
        "title": f"{result.model}: {_TITLES[advice.verdict]}",
        "subtitle": f"Ablation of the clipping policy: {rows.window_words(result)}; {len(result.arms)} policies with "
        f"{len(result.seeds)} seed{'' if len(result.seeds) == 1 else 's'}, {result.num_steps:,} steps each",
        "headline": advice.headline,
        "tone": _TONES[advice.verdict],
        "reasons": advice.reasons,
        "tiles": _tiles(result),
        "columns": rows.TABLE_COLUMNS,
        "loss_name": rows.loss_name(result),
        "margin": f"{result.margin:.4f}",
        "arms": [_row(one, result) for one in rows.by_bound(result.arms)],
        "has_later": has_later,
        "pictures": [*_pictures(result, has_later=has_later), *_shares(result)],
        "later_words": later_words(result),
        "troubles": [f"{rows.name_of(one)}: {one.reason}" for one in result.arms if one.reason],
        "footer": f"Written by clipdrift ablate from result.json (form {result.version}); it holds every figure of this page.",
    }


def _tiles(result: AblationResult) -> list[dict[str, str]]:
    present, norms = result.arms[0], result.norms
    done = sum(one.status == "done" for one in result.arms)
    return [
        {"figure": rows.percent(present.removed_mass_ratio), "words": "of the gradient norm is removed at present"},
        {"figure": rows.percent(present.clip_rate_ratio), "words": "of the steps are clipped at present"},
        {"figure": f"{norms.median:.3g}" if norms else "-", "words": "is the median norm before clipping"},
        {"figure": present.optimizer or "-", "words": f"with learning rate {present.learning_rate:g}"},
        {"figure": f"{done} of {len(result.arms)}", "words": "policies came to an end with every seed"},
    ]


def _row(one: ArmFigures, result: AblationResult) -> dict[str, Any]:
    classes = [
        name
        for name, holds in (("live", one.arm.name == result.recommendation.arm), ("soft", one.arm.name == PRESENT))
        if holds
    ]
    return {
        "name": rows.name_of(one),
        "provenance": one.arm.provenance,
        "cells": rows.cells(one),
        "later": rows.number(one.later.loss if one.later else None),
        "classes": " ".join(classes),
        "is_recommended": one.arm.name == result.recommendation.arm,
    }


def _pictures(result: AblationResult, *, has_later: bool) -> list[dict[str, Any]]:
    found = []
    for figure in rows.figures_of(result):
        table = []
        for one in rows.by_bound(result.arms):
            if one.validation is None:
                continue
            later = [rows.number(figure.value(one.later)) if one.later else "-"] if has_later else []
            words = rows.contrast_words(figure.contrast(one.validation), is_turned=bool(figure.is_better_higher))
            table.append([rows.name_of(one), rows.number(figure.value(one.validation)), words, *later])
        heads = ["policy", "held out", "minus present’s", *(["later"] if has_later else [])]
        svg = plots.figure_over_threshold(result.arms, figure, result.recommendation.arm)
        found.append({"svg": svg, "heads": heads, "rows": table})
    return found


def _shares(result: AblationResult) -> list[dict[str, Any]]:
    arms, recommended = result.arms, result.recommendation.arm
    shares: tuple[tuple[str, Callable[[ArmFigures], float | None]], ...] = (
        ("% of the gradient norm removed", lambda one: one.removed_mass_ratio),
        ("% of the steps clipped", lambda one: one.clip_rate_ratio),
    )
    return [
        {
            "svg": plots.share_over_threshold(arms, name, share, recommended),
            "heads": ["policy", name],
            "rows": [[rows.name_of(one), rows.percent(share(one))] for one in rows.by_bound(arms)],
        }
        for name, share in shares
    ]


def later_words(result: AblationResult) -> str:
    """How the recommendation did on the later months; empty where there are none."""
    check = result.later_check
    by_name = {one.arm.name: rows.name_of(one) for one in result.arms}
    chosen = by_name[result.recommendation.arm]
    if check is None:
        words = f"On the later months {chosen} did not come to an end with every seed, so nothing is said of how it did there."
        return words if result.later_from_ms is not None else ""
    if check.best == result.recommendation.arm:
        return f"On the later months, which had no part in the choice, {chosen} is the best of all: {check.best_loss:.4f}."
    return (
        f"On the later months, which had no part in the choice, {chosen} has {check.recommended_loss:.4f}; the best there, "
        f"{by_name[check.best]}, has {check.best_loss:.4f}: a difference of {check.regret.difference:+.4f} "
        f"[{check.regret.low:+.4f}, {check.regret.high:+.4f}], where less than {result.margin:.4f} is taken to mean nothing."
    )
