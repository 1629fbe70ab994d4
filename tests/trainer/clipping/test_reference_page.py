"""docs/reference/clipping-rules.md says what the classes say."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import RULES, make_clipper

PAGE = (Path(__file__).parents[3] / "docs/reference/clipping-rules.md").read_text()


def rows_under(heading):
    section = PAGE.partition(heading)[2]
    table = re.findall(r"^\|(.*)\|$", section.partition("\n\n##")[0], re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in table[2:]]


RULE_ROWS = {row[0].strip("`"): row for row in rows_under("# Clipping rules")}


def test_every_rule_has_a_row():
    assert set(RULE_ROWS) == set(RULES)


@pytest.mark.parametrize("kind", sorted(RULES))
def test_a_rules_row_says_what_its_class_does(kind):
    _, _, max_norm, keeps_direction, state, source = RULE_ROWS[kind]
    rule = RULES[kind]
    assert keeps_direction == ("yes" if rule.keeps_direction else "no")
    assert max_norm.endswith("needed") == rule.needs_max_norm
    assert (max_norm == "refused") == (not rule.takes_max_norm)
    clipper = make_clipper(ClipSpec(kind=kind, max_norm=1.0 if rule.needs_max_norm else None))
    assert re.findall(r"`(\w+)`", state) == list(clipper.state_dict())
    for arxiv in re.findall(r"\d{4}\.\d{5}", source):
        assert arxiv in (rule.__doc__ or "")


def test_every_option_is_listed_with_its_default_range_and_meaning():
    expected = []
    for kind, rule in RULES.items():
        for field in msgspec.structs.fields(rule.options_type):
            meta = get_args(field.type)[1]
            limits = {"> ": meta.gt, ">= ": meta.ge, "< ": meta.lt, "<= ": meta.le}
            allowed = ", ".join(f"{sign}{limit}" for sign, limit in limits.items() if limit is not None)
            expected.append([f"`{kind}`", f"`{field.name}`", f"{field.default:g}", allowed, meta.description])
    assert rows_under("## Options") == expected
