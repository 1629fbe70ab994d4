"""Which users are harmed, and which input moved?"""

from clipdrift_dashboards.board import Board, model_variable, worst_variable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import drift, features, marks, slices, strip, style

_REPEATED = 6


def board(links: Links) -> Board:
    """Slices first: they are people. Inputs after: they are causes."""
    return Board(
        name="slices",
        question="Which users are harmed, and which input moved?",
        variables=(model_variable(), worst_variable("slice", slices.worst_query(_REPEATED), "slice")),
        marks=marks.of_one_model(),
        rows=(
            strip.row(links),
            style.Row(
                "Which users lose?",
                (style.Line(9, ((slices.table(), 12), (slices.worst_over_time(), 12))),),
            ),
            style.Row(
                "What moved?",
                (
                    style.Line(9, ((features.table(), 12), (drift.features(), 12))),
                    style.Line(style.LINE_HEIGHT, ((features.share_moved(), 12), (drift.score_and_mix(), 12))),
                ),
            ),
            style.Row("The six slices that lost most", (style.Line(7, ((slices.one(), 24),)),), is_collapsed=True),
        ),
    )
