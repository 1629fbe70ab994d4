"""What did clipping do when this model was trained, and what does it do now?"""

from clipdrift_dashboards.board import Board, model_variable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import arms, clipping, harm, marks, run, strip, style, verdict


def board(links: Links) -> Board:
    """The run of the version in service; the run that goes on now."""
    return Board(
        name="training",
        question="What did clipping do when this model was trained, and what does it do now?",
        variables=(model_variable(),),
        marks=marks.of_one_model(),
        rows=(
            strip.row(links),
            style.Row(
                "What did clipping take from the versions that served, and did harm go with it?",
                (
                    style.Line(
                        12,
                        (
                            (
                                (
                                    (clipping.both("Clipping, by the version in service"), 6),
                                    (harm.evidence(links, "Evidence of harm, by test"), 6),
                                ),
                                17,
                            ),
                            (verdict.in_words(links), 7),
                        ),
                    ),
                ),
            ),
            style.Row(
                "What would other clipping have done?",
                (style.Line(style.LINE_HEIGHT - 2, ((arms.table(), 14), (arms.probe(), 10))),),
            ),
            style.Row(
                "How does the training that runs now go?",
                (
                    style.Line(style.LINE_HEIGHT, ((run.loss(), 12), (run.norms(), 12))),
                    style.Line(style.LINE_HEIGHT, ((run.clipped(), 12), (run.learning_rates(), 12))),
                ),
            ),
            style.Row(
                "Which layers, which users?",
                (style.Line(style.LINE_HEIGHT, ((run.layers(), 12), (run.slices(), 12))),),
            ),
            style.Row(
                "Is it sound, and is it recorded?",
                (style.Line(style.LINE_HEIGHT - 1, ((run.faults(), 12), (run.telemetry(), 12))),),
                is_collapsed=True,
            ),
        ),
    )
