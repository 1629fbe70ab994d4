"""Is this model harming its users, is it proven, and why?"""

from clipdrift_dashboards.board import Board, model_variable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import (
    accuracy,
    calibration,
    clipping,
    drift,
    harm,
    labels,
    marks,
    rollout,
    strip,
    style,
    traffic,
    verdict,
)


def board(links: Links) -> Board:
    """Drift, harm and clipping on one time axis, with the verdict beside them; then each in full."""
    together = (
        (drift.in_short("Drift: have inputs or answers moved?"), 6),
        (harm.evidence(links, "Harm: the evidence, by test"), 6),
        (clipping.both("Clipping: what training removed"), 6),
    )
    return Board(
        name="model",
        question="Is this model harming its users, is it proven, and why?",
        variables=(model_variable(),),
        marks=marks.of_one_model(),
        rows=(
            strip.row(links),
            style.Row(
                "Drift, harm and clipping on one time axis, and what is proven",
                (style.Line(18, ((together, 17), (verdict.in_words(links), 7))),),
            ),
            style.Row(
                "Does it do what was validated?",
                (style.Line(style.LINE_HEIGHT, ((accuracy.over_time(), 12), (accuracy.labels(), 6), (harm.worth(), 6))),),
            ),
            style.Row("Do its probabilities mean what they say?", (calibration.scores(),)),
            style.Row(
                "How much is known, and how late?",
                (style.Line(style.LINE_HEIGHT - 1, ((labels.maturity(links), 12), (labels.delay(), 12))),),
                is_collapsed=True,
            ),
            style.Row(
                "How much is asked, how fast and at what cost is it answered?",
                (
                    style.Line(style.LINE_HEIGHT - 1, ((traffic.arrivals(), 12), (traffic.latency(), 12))),
                    style.Line(style.LINE_HEIGHT - 1, ((traffic.failures(), 12), (traffic.cost(), 12))),
                ),
                is_collapsed=True,
            ),
            style.Row(
                "Can its alarms be believed?",
                (style.Line(style.LINE_HEIGHT, ((rollout.false_alarms(), 18), (rollout.precision(), 6))),),
                is_collapsed=True,
            ),
        ),
    )
