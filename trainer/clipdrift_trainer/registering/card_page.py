"""The model card as Markdown, for people. Made of the card alone, so it says nothing that the card does not."""

from collections.abc import Iterable, Sequence

from clipdrift_contract.clipping import describe_clip, percent
from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import GateCheck, ScoreInterval, SliceScore
from clipdrift_trainer.registering.card import ModelCard

_ALL = "all rows"
_STATED = (
    ("owners", "Owners"), ("intended_use", "Intended use"), ("out_of_scope", "Out of scope"), ("limits", "Limits"),
    ("license", "License"),
)  # fmt: skip


def card_page(card: ModelCard) -> str:
    """The card in the sections of Mitchell et al. 2019."""
    parts = [
        [f"# {card.model} {card.version}"],
        _details(card),
        _use(card),
        _data(card),
        _training(card),
        _figures(card),
        _gate(card),
        _more(card),
        ["## What is not known", "", *(f"- {_plain(words)}" for words in card.not_known)] if card.not_known else [],
        ["## Files", "", *_table(("file", "SHA-256"), ((name, digest) for name, digest in card.files.items()))],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _details(card: ModelCard) -> list[str]:
    about, origin = card.about, card.origin
    what = f"{about.task} of {', '.join(about.classes)}" if about.classes else about.task
    features = ", ".join(f"{one.name} ({one.kind}{', may be missing' if one.nullable else ''})" for one in about.features)
    rows = [
        ("kind", what),
        ("features", features),
        ("parameters", f"{about.num_parameters:,}, stored as {about.precision}"),
        ("temperature", f"{about.temperature:g}"),
        ("artifact", about.artifact_digest),
        ("trained", f"{format_moment(origin.started_at_ms)} UTC, run {origin.run_id}"),
        ("code", origin.code_revision),
        ("seed", str(origin.seed)),
    ]
    if origin.retrain_key:
        rows.append(("retrain", f"{origin.retrain_key}, arm {origin.arm}"))
    if origin.parent is not None:
        rows.append(("to replace", f"{origin.parent.version} ({origin.parent.digest})"))
    return ["## Model", "", *_table(("", ""), rows)]


def _use(card: ModelCard) -> list[str]:
    said = [f"- **{title}**: {_plain(getattr(card.stated, name)) or 'not stated'}" for name, title in _STATED]
    return ["## Use, as its owners state it", "", *said]


def _data(card: ModelCard) -> list[str]:
    origin = card.origin
    lines = [
        "## Data",
        "",
        f"Rows from {format_moment(origin.data_start_ms)} to {format_moment(origin.data_end_ms)} UTC, with labels known by "
        f"{format_moment(origin.as_of_ms)} UTC; digest {origin.data_digest}.",
    ]
    if card.data_checks:
        lines += ["", *_table(("check", "outcome", "words"), ((one.name, one.outcome, one.words) for one in card.data_checks))]
    return lines


def _training(card: ModelCard) -> list[str]:
    did = card.training
    lines = [
        "## Training and clipping",
        "",
        f"{did.optimizer}, learning rate {did.learning_rate:g}, {did.num_steps} steps; clipping: {describe_clip(did.clip)}.",
        f"Clipping removed {percent(did.removed_mass_ratio)} of the gradient mass, in {percent(did.clip_rate_ratio)} of the "
        f"steps. Steps with a norm that is not finite: {did.num_nonfinite}. Steps where the optimizer did not consume what "
        f"clipping promised: {did.num_ineffective} of {did.num_checked} checked.",
    ]
    if did.norm_quantiles is not None:
        norms = did.norm_quantiles
        lines.append(
            f"Norms before clipping, last half of the run: 10 % below {norms.p10:.4g}, 50 % below {norms.p50:.4g}, 90 % below "
            f"{norms.p90:.4g}, 99 % below {norms.p99:.4g}."
        )
    lines += [f"- Fault {one.kind} from step {one.step} ({one.num_steps} steps): {_plain(one.words)}" for one in did.faults]
    return lines


def _figures(card: ModelCard) -> list[str]:
    found = card.evaluation
    lines = ["## Figures on held-out days", ""]
    if card.about.task == "regression":
        columns = ("slice", "rows", "trained on", "mean squared error", "mean absolute error")
        rows = (
            (one.slice or _ALL, str(one.num_rows), str(one.num_train), _mean(one.squared_error_sum, one),
             _mean(one.absolute_error_sum, one))
            for one in found.scores
        )  # fmt: skip
        lines += _table(columns, rows)
    else:
        lines += _table(
            ("slice", "rows", "trained on", "accuracy", "log loss", "Brier", "ECE", "AUC"),
            (
                (one.slice or _ALL, str(one.num_rows), str(one.num_train), _mean(one.num_correct, one),
                 _mean(one.nll_sum, one), _mean(one.brier_sum, one), f"{one.ece:.4f}", _maybe(one.auc))
                for one in found.scores
            ),
        )  # fmt: skip
    if found.intervals:
        lines += ["", "95 % intervals by blocks of time:", ""]
        lines += _table(("slice", "figure", "value", "low", "high", "rows", "blocks"), map(_interval_row, found.intervals))
    lines += [f"- {_plain(one.words)}" for one in found.hidden_slices if one.words]
    return lines


def _gate(card: ModelCard) -> list[str]:
    if card.gate is None:
        return []
    return [
        "## Gate",
        "",
        f"Verdict: **{card.gate.verdict}**.",
        *(f"- {_plain(words)}" for words in card.gate.reasons),
        "",
        *_table(("check", "slice", "outcome", "value", "bound", "decides", "words"), map(_check_row, card.gate.checks)),
    ]


def _more(card: ModelCard) -> list[str]:
    found, lines = card.evaluation, []
    if (one := found.calibration) is not None:
        lines.append(
            f"- Calibration on {one.num_rows} rows, temperature {one.temperature:.3g}: log loss {one.nll_before:.4f} without, "
            f"{one.nll_after:.4f} with; ECE {one.ece_before:.4f} and {one.ece_after:.4f}."
        )
    if (member := found.membership) is not None:
        lines.append(
            f"- Membership inference by the loss: AUC {member.auc:.3f} ({member.auc_low:.3f} to {member.auc_high:.3f}; 0.5 is "
            f"no better than chance), {percent(member.tpr_at_fpr_1)} found at 1 % false positives."
        )
    if (spent := found.privacy) is not None:
        lines.append(
            f"- Differential privacy: epsilon {spent.epsilon:.3g} at delta {spent.delta:.3g} ({spent.accountant}, noise "
            f"{spent.noise_multiplier:g})."
        )
    return ["## Calibration and privacy", "", *lines] if lines else []


def _interval_row(one: ScoreInterval) -> Sequence[str]:
    return (
        one.slice or _ALL, one.metric, f"{one.value:.4f}", f"{one.low:.4f}", f"{one.high:.4f}", str(one.num_rows),
        str(one.num_blocks),
    )  # fmt: skip


def _check_row(one: GateCheck) -> Sequence[str]:
    unit = f" {one.unit}" if one.unit else ""
    value = "" if one.value is None else f"{one.value:.4g}{unit}"
    bound = "" if one.bound is None else f"{one.bound:.4g}{unit}"
    return one.name, one.slice or _ALL, one.outcome, value, bound, "yes" if one.is_decisive else "on trial", one.words


def _mean(total: float, one: SliceScore) -> str:
    return f"{total / one.num_rows:.4f}" if one.num_rows else "no rows"


def _maybe(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return head + [f"| {' | '.join(map(_plain, row))} |" for row in rows]


def _plain(text: str) -> str:
    """Words of users as one line that is neither a column nor markup of its own."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "<", "`", "[", "*"):
        flat = flat.replace(sign, f"\\{sign}")
    return flat
