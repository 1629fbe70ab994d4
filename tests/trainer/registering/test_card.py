"""The model card says what was measured, and what was not."""

import json

import msgspec
import pytest

from clipdrift_contract.events import RunEnd
from clipdrift_trainer.registering.card import (
    CardGate,
    CardParent,
    StatedSection,
    card_digest,
    decode_card,
    encode_card,
    make_card,
)
from clipdrift_trainer.registering.card_page import card_page

FILES = {"weights.pt": "b" * 64, "model.onnx": "a" * 64}
PARENT = CardParent(version="20130201-old000", digest="sha256:old")


def test_every_figure_of_the_card_is_the_runs_own(run: RunEnd, gate: CardGate) -> None:
    told = json.loads(encode_card(make_card(run, files=FILES, gate=gate, parent=PARENT)))
    known = json.loads(msgspec.json.encode(run))

    assert told["evaluation"]["scores"] == known["validation"]
    for part in ("intervals", "hidden_slices", "calibration", "membership", "privacy"):
        assert told["evaluation"][part] == known[part], part
    for name, value in told["training"].items():
        assert value == known[name], name
    assert {name: told["origin"][name] for name in ("data_digest", "code_revision", "run_id", "retrain_key", "arm")} == {
        name: known[name] for name in ("data_digest", "code_revision", "run_id", "retrain_key", "arm")
    }
    assert told["origin"]["parent"] == json.loads(msgspec.json.encode(PARENT))
    assert told["gate"] == json.loads(msgspec.json.encode(gate))
    assert told["files"] == dict(sorted(FILES.items()))


def test_the_same_card_has_the_same_bytes_and_is_read_back(run: RunEnd) -> None:
    first, second = (encode_card(make_card(run, files=files)) for files in (FILES, dict(reversed(FILES.items()))))

    assert first == second
    assert decode_card(first) == make_card(run, files=FILES)
    assert card_digest(first) == card_digest(second) != card_digest(first + b" ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"membership": None}, "Membership inference was not measured"),
        ({"intervals": ()}, "no intervals"),
        ({"data_checks": ()}, "data were not checked"),
        ({"num_checked": 0}, "was not checked"),
    ],
)
def test_what_nobody_measured_is_said_to_be_so(run: RunEnd, change: dict[str, object], words: str) -> None:
    card = make_card(msgspec.structs.replace(run, **change), files=FILES)

    assert any(words in line for line in card.not_known)
    assert words in card_page(card)


def test_a_training_by_hand_has_no_gate_and_says_so(run: RunEnd) -> None:
    page = card_page(make_card(run, files=FILES))

    assert "## Gate" not in page
    assert "no gate compared it" in page


def test_the_page_tells_use_as_stated_and_what_is_not_stated(run: RunEnd) -> None:
    page = card_page(make_card(run, files=FILES, stated=StatedSection(owners="Plant team", intended_use="find leaks")))

    assert "- **Owners**: Plant team" in page
    assert "- **Out of scope**: not stated" in page
    assert "Nobody stated: out of scope, limits, license" in page


def test_the_page_tells_slices_gate_and_clipping(run: RunEnd, gate: CardGate) -> None:
    page = card_page(make_card(run, files=FILES, gate=gate, parent=PARENT))

    assert "| south | 40 | 0 | 0.6500 | 0.5000 | 0.2000 | 0.0500 | 0.7000 |" in page
    assert "| all rows | accuracy | 0.8000 | 0.7000 | 0.9000 | 100 | 9 |" in page
    assert "| latency | all rows | pass | 1.5 ms | 5 ms | yes | one row takes 1.5 ms |" in page
    assert "| membership | all rows | unreachable |  |  | on trial | no rows to ask |" in page
    assert "Clipping removed 25 % of the gradient mass, in 50 % of the steps." in page
    assert "1 of 10 checked" in page
    assert "20130201-old000 (sha256:old)" in page


def test_words_of_users_cannot_break_the_pages_tables(run: RunEnd) -> None:
    page = card_page(make_card(run, files=FILES, stated=StatedSection(limits="a\n| b | <script> [x](y)")))

    assert "- **Limits**: a \\| b \\| \\<script> \\[x](y)" in page
    assert "| north\\|east | 60 |" in page
    widths = {line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("| ") and "0.0500" in line}
    assert widths == {9}
