"""Expectations as a pandera schema, and what it finds as violations."""

from collections import defaultdict
from collections.abc import Sequence

import pandera.polars as pandera
import polars as pl

from clipdrift_trainer.quality.schema import Expectation, Violation


def violations(frame: pl.DataFrame, expectations: Sequence[Expectation]) -> list[Violation]:
    """What `frame` breaks, in the order of the expectations."""
    try:
        make_schema(frame, expectations).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        return _read(errors.failure_cases, expectations)
    return []


def make_schema(frame: pl.DataFrame, expectations: Sequence[Expectation]) -> pandera.DataFrameSchema:
    """One pandera column for each column that is expected something; nulls are allowed unless "missing" forbids them.

    Args:
        frame: Says which columns are words and which numbers.
        expectations: What to check.
    """
    by_column: dict[str, list[Expectation]] = defaultdict(list)
    for one in expectations:
        by_column[one.column].append(one)
    return pandera.DataFrameSchema(
        {
            name: pandera.Column(
                pl.String if frame[name].dtype == pl.String else pl.Float32,
                nullable=not any(one.kind == "missing" for one in wanted),
                checks=[_check(one) for one in wanted if one.kind not in ("missing", "type")],
            )
            for name, wanted in by_column.items()
        }
    )


def _check(one: Expectation) -> pandera.Check:
    if one.categories:
        return pandera.Check.isin(list(one.categories), error=one.kind)
    return pandera.Check.in_range(one.low, one.high, error=one.kind)


def _read(cases: pl.DataFrame, expectations: Sequence[Expectation]) -> list[Violation]:
    """Failure cases by column and check; pandera's own names for what the column itself demands are translated."""
    kinds = {"not_nullable": "missing"}
    found: dict[tuple[str, str], tuple[list[int], str]] = {}
    for column, check, index, case in cases.select("column", "check", "index", "failure_case").iter_rows():
        kind = kinds.get(check, "type" if str(check).startswith("dtype") else check)
        rows, _ = found.setdefault((column, kind), ([], str(case)))
        if index is not None:
            rows.append(int(index))
    return [
        Violation(expectation=one, rows=tuple(rows), example=example)
        for one in expectations
        for rows, example in (found.get((one.column, one.kind), ([], "")),)
        if (one.column, one.kind) in found
    ]
