"""What is the monitor blind to, and is it in time?"""

from clipdrift_dashboards.board import Board, count_variable, worst_variable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import pipeline, style


def board(links: Links) -> Board:
    """The monitor itself, what is not seen, then the way of a record from serving to the store."""
    high = style.LINE_HEIGHT - 1
    return Board(
        name="pipeline",
        question="What is the monitor blind to, and is it in time?",
        variables=(
            count_variable("top", "Models shown", (10, 5, 20)),
            *(worst_variable(name, query, "model") for name, query in pipeline.RANKINGS.items()),
        ),
        is_of_one_model=False,
        rows=(
            pipeline.row(links),
            style.Row("Exactly what is blind?", (style.Line(high, ((pipeline.blind(links), 12), (pipeline.maturity(), 12))),)),
            style.Row(
                "Is it in time?",
                (
                    style.Line(high, ((pipeline.lag(), 12), (pipeline.watermarks(), 12))),
                    style.Line(high, ((pipeline.commits(), 12), (pipeline.delays(), 12))),
                ),
            ),
            style.Row(
                "What comes in, and what is lost on the way?",
                (
                    style.Line(high, ((pipeline.served_and_seen(), 12), (pipeline.events(), 12))),
                    style.Line(high, ((pipeline.unrecorded(), 12), (pipeline.waiting(), 12))),
                ),
            ),
            style.Row(
                "What is refused, and what is kept?",
                (
                    style.Line(high, ((pipeline.labels_received(), 12), (pipeline.turned_away(), 12))),
                    style.Line(high, ((pipeline.poison(), 12), (pipeline.audit_rows(), 12))),
                ),
                is_collapsed=True,
            ),
        ),
    )
