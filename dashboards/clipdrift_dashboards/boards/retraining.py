"""What was decided, what came of it, and what did it cost?"""

from clipdrift_dashboards.board import Board, model_variable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import canary, marks, retrains, rollout, strip, style, traffic


def board(links: Links) -> Board:
    """Decisions, retrains, versions, and how often all that was right."""
    figures = (
        (rollout.running(links), 4), (rollout.finished(), 5), (rollout.useless(), 4), (rollout.time_spent(), 4),
        (rollout.rollbacks(), 3), (rollout.precision(), 4),
    )  # fmt: skip
    of_worth = (
        (canary.worth(), 5), (canary.gain(), 6), (canary.machine_time(), 5), (canary.false_retrains(), 4),
        (canary.kept_out(), 4),
    )  # fmt: skip
    return Board(
        name="retraining",
        question="What was decided, what came of it, and what did it cost?",
        variables=(model_variable(),),
        marks=marks.of_one_model(),
        rows=(
            strip.row(links),
            style.Row("What came of it, and what did it cost?", (style.Line(5, figures),)),
            style.Row(
                "How does the candidate fare?",
                (style.Line(style.LINE_HEIGHT, ((canary.share(), 8), (canary.evidence(), 8), (canary.difference(), 8))),),
            ),
            style.Row(
                "What was decided?",
                (style.Line(style.LINE_HEIGHT, ((retrains.decisions(links), 12), (retrains.verdicts(links), 12))),),
            ),
            style.Row("What were retrains worth?", (style.Line(5, of_worth),), is_collapsed=True),
            style.Row(
                "Who answers, and is the newer one better?",
                (
                    style.Line(
                        style.LINE_HEIGHT,
                        ((traffic.versions(), 8), (rollout.correct_by_version(), 8), (rollout.swaps(links), 8)),
                    ),
                ),
                is_collapsed=True,
            ),
            style.Row(
                "Can alarms be believed?", (style.Line(style.LINE_HEIGHT, ((rollout.false_alarms(), 24),)),), is_collapsed=True
            ),
        ),
    )
