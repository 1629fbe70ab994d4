"""Is any model harming its users now, why, and what is being done?"""

from clipdrift_dashboards.board import Board, count_variable, worst_variable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import fleet, marks, style

_REPEATED = 6


def board(links: Links) -> Board:
    """For any number of models: counts, and the few that need somebody."""
    return Board(
        name="fleet",
        question="Is any model harming its users now, why, and what is being done?",
        variables=(
            count_variable("top", "Models shown", (10, 5, 20, 50)),
            *(worst_variable(name, query, "model") for name, query in fleet.RANKINGS.items()),
            worst_variable("worst", f"topk({_REPEATED}, {fleet.NEED})", "model"),
        ),
        marks=(marks.incidents(of_all=True), marks.deployments(of_all=True), marks.retrains(of_all=True)),
        is_of_one_model=False,
        rows=(
            fleet.row(links),
            style.Row("Which of them, why, and what is being done?", (style.Line(10, ((fleet.table(), 24),)),)),
            style.Row(
                "Is it getting worse?",
                (
                    style.Line(style.LINE_HEIGHT, ((fleet.incidents(), 12), (fleet.evidence(), 12))),
                    style.Line(style.LINE_HEIGHT, ((fleet.loss(), 12), (fleet.drift(), 12))),
                ),
            ),
            style.Row(
                "What is asked, and what is being done?",
                (style.Line(style.LINE_HEIGHT - 1, ((fleet.traffic(), 12), (fleet.retrains(), 12))),),
            ),
            style.Row("The six that need somebody most", (style.Line(7, ((fleet.one(), 24),)),), is_collapsed=True),
        ),
    )
