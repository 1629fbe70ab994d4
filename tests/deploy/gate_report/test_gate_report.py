"""The gate's page: every check in words, what can be done, and nothing that its data could break."""

import msgspec
import pytest

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Arm, ArmResult, ClipSpec, GateCheck, RetrainOutcome
from clipdrift_deploy.gate_report.plots import margin_plot
from clipdrift_deploy.gate_report.report import gate_page, write_gate_page
from clipdrift_deploy.gate_report.rows import check_rows

LOSS = GateCheck(
    name="loss", outcome="pass", words="better by 0.02", value=-0.02, low=-0.03, high=-0.01, bound=0.0, unit="Brier score",
    num_rows=4000, num_blocks=40,
)  # fmt: skip
NIGHT = msgspec.structs.replace(
    LOSS, name="slice", slice="night <b>", outcome="fail", words="worse by 0.05", value=0.05, low=0.03, high=0.07, bound=0.01
)
SIZE = GateCheck(name="size", outcome="pass", words="as large", value=1.2, bound=5.0, unit="times")
ATTACK = GateCheck(name="robustness", outcome="inconclusive", words="too few rows", is_decisive=False)
LATENCY = GateCheck(name="latency", outcome="pass", words="as fast", value=1.1, low=0.9, high=1.3, bound=2.0, unit="times")
ARM = ArmResult(
    arm=Arm(name="same", clip=ClipSpec(kind="global_norm", max_norm=1.0)), run_id="r", version="v2", artifact_uri="file:///m",
    artifact_digest="sha256:1", removed_mass_ratio=0.2, validation=(),
)  # fmt: skip
OUTCOME = RetrainOutcome(
    key="k1", model="pump", finished_at_ms=0, verdict="fail", reasons=("night is worse",), winner="same",
    candidate_version="v2", checks=(LOSS, NIGHT, SIZE, ATTACK, LATENCY), wall_seconds=12.3, cpu_seconds=20.0, arms=(ARM,),
)  # fmt: skip


def test_what_keeps_the_candidate_out_stands_first_with_what_can_be_done() -> None:
    rows = check_rows(OUTCOME.checks)
    assert [row.name for row in rows] == ["slice", "loss", "size", "robustness (FGSM, PGD)", "latency, median"]
    assert "slice_margins" in rows[0].advice
    assert (rows[1].value_words, rows[1].rows_words) == ("-0.0200 [-0.0300, -0.0100]", "4,000 rows, 40 days")
    assert (rows[3].role, rows[3].value_words, rows[3].bound_words) == ("on trial", "-", "")


def test_the_page_says_verdict_reasons_and_every_check_and_takes_no_markup_of_a_slice() -> None:
    page = gate_page(OUTCOME)
    for words in ("pump: the candidate fails", "night is worse", "3 of 4", "too few rows", "≤ 5 times", "12.3 s", "<svg"):
        assert words in page
    assert "night <b>" not in page
    assert "night &lt;b&gt;" in page


@pytest.mark.parametrize("checks", [(), (ATTACK,)])
def test_a_gate_that_measured_nothing_has_no_picture(checks) -> None:
    outcome = msgspec.structs.replace(OUTCOME, checks=checks, verdict="inconclusive", arms=(), winner="")
    assert margin_plot(checks) == ""
    assert "nothing is decided" in gate_page(outcome)


def test_figures_far_beyond_their_bound_and_a_bound_of_nothing_are_drawn_at_the_edge() -> None:
    far = msgspec.structs.replace(SIZE, value=1e9, bound=1.0, outcome="fail")
    assert "<svg" in margin_plot([far, msgspec.structs.replace(far, value=1.0)])


def test_a_page_that_cannot_be_written_says_so(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClipdriftError, match="cannot be written"):
        write_gate_page(tmp_path / "file" / "gate.html", OUTCOME)
