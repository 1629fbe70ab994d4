"""Types, bounds and categories: what the task declares, what the model in service knew, and what the user says."""

import msgspec
import numpy as np

from clipdrift_contract.profile import FeatureProfile, FeatureSpec
from clipdrift_trainer.quality.finding import Finding, Level, level_of, passed, skipped, worst
from clipdrift_trainer.quality.table import Floats, Table

_NUM_KNOWN_SPANS = 20  # a number so many spans of the model's reference away from it is another quantity
_WILD_SPANS = 50  # a number so many half spans (1 % to 99 %) from the median is no measurement but a mark
_MIN_ROWS = 20
_MIN_MARKS = 5


class SchemaPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which values are allowed. Types and missing values follow the task's features."""

    enabled: bool = True
    """Off: not checked."""
    bounds: dict[str, tuple[float, float]] = {}
    """Lowest and highest value by feature, such as `{pressure = [0, 12]}`; `-inf` and `inf` leave a side open. One value
    outside warns."""
    categories: dict[str, tuple[str, ...]] = {}
    """Allowed categories by feature. One other category warns."""
    warn_unknown_share: float = 0.02
    """Share of values unlike those that the model in service knew, from which on it warns: categories, by how much they became
    more, and numbers far outside its bins, whose outermost hold a sixteenth of the rows each."""
    warn_wild_share: float = 0.001
    """Share of numbers that lie so far off, and are so often the same, that they are marks (-999, 1e9) and not measurements,
    from which on it warns."""
    stop_share: float = 0.01
    """Share of rows that break a bound or category given here from which on it stops, in mode enforce."""

    def __post_init__(self) -> None:
        for feature, (low, high) in self.bounds.items():
            if not low <= high:
                raise ValueError(f"schema.bounds of {feature!r} must be [lowest, highest], got [{low!r}, {high!r}]")
        if not 0 < self.stop_share <= 1:
            raise ValueError(f"schema.stop_share must be in 0..1 and above 0, got {self.stop_share!r}")


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What one column of the frame must satisfy."""

    column: str
    feature: str
    kind: str  # type, missing, bounds, categories, known_categories, known_range, wild
    low: float = -np.inf
    high: float = np.inf
    categories: tuple[str, ...] = ()
    usual_share: float = 0.0  # of rows that broke it at reference time

    @property
    def words(self) -> str:
        if self.kind in ("bounds", "known_range", "wild"):
            return f"outside {self.low:.6g} to {self.high:.6g}"
        return {"missing": "missing, though not declared nullable", "type": "of another type"}.get(
            self.kind, "in a category that is not among those known"
        )


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that break one expectation."""

    expectation: Expectation
    rows: tuple[int, ...]
    example: str = ""


def check_schema(table: Table, policy: SchemaPolicy) -> Finding:
    """Every value against what its feature is expected to be."""
    if len(table) < _MIN_ROWS:
        return skipped("too few rows to say what is usual")
    from clipdrift_trainer.quality.validation import violations  # noqa: PLC0415  pandera takes half a second that "off" should not pay

    broken = [one for one in violations(table.frame, expectations(table, policy)) if _is_meant(one, table)]
    judged = [(one, _level(one, len(table), policy)) for one in broken]
    found = [(one, level) for one, level in judged if level != "pass"]
    if not found:
        return passed(f"{len(table.task.features)} features are as declared and within bounds", num_rows=float(len(table)))
    words = [
        f"{one.expectation.feature}: {len(one.rows):,} rows {one.expectation.words} (such as {one.example})" for one, _ in found
    ]
    return Finding(
        level=worst([level for _, level in found]),
        words="; ".join(words[:5]),
        figures={"highest_share": max(len(one.rows) for one, _ in found) / len(table)},
        features=tuple(dict.fromkeys(one.expectation.feature for one, _ in found)),
        rows=np.unique(np.concatenate([one.rows for one, _ in found])),
    )


def _is_meant(one: Violation, table: Table) -> bool:
    """A mark stands in many rows; far numbers that are all different are a heavy tail."""
    if one.expectation.kind != "wild":
        return True
    _, counts = np.unique(table.frame[one.expectation.column].gather(list(one.rows)).to_numpy(), return_counts=True)
    return bool(counts.max() >= max(_MIN_MARKS, len(one.rows) // 2))


def _level(one: Violation, num_rows: int, policy: SchemaPolicy) -> Level:
    share = len(one.rows) / num_rows
    if one.expectation.kind in ("bounds", "categories", "missing", "type"):
        return level_of(share, 1 / num_rows, policy.stop_share)
    if one.expectation.kind in ("known_categories", "known_range"):
        return level_of(share - one.expectation.usual_share, policy.warn_unknown_share, np.inf)
    return level_of(share, policy.warn_wild_share, np.inf)


def expectations(table: Table, policy: SchemaPolicy) -> list[Expectation]:
    """What every column of the frame is held against, from the task, the policy and the profile."""
    found: list[Expectation] = []
    for spec in table.task.features:
        known = table.profile_of(spec.name)
        if spec.kind == "categorical":
            found += _of_category(spec, known, policy)
        else:
            found += _of_number(spec, known, policy, table)
    return found


def _of_category(spec: FeatureSpec, known: FeatureProfile | None, policy: SchemaPolicy) -> list[Expectation]:
    found = [Expectation(column=spec.name, feature=spec.name, kind="type")]
    if spec.name in policy.categories:
        allowed = policy.categories[spec.name]
        found.append(Expectation(column=spec.name, feature=spec.name, kind="categories", categories=allowed))
    elif known is not None and known.categories:
        usual = known.counts[-1] / max(1, sum(known.counts))
        found.append(
            Expectation(
                column=spec.name, feature=spec.name, kind="known_categories", categories=known.categories, usual_share=usual
            )
        )
    return found


def _of_number(spec: FeatureSpec, known: FeatureProfile | None, policy: SchemaPolicy, table: Table) -> list[Expectation]:
    is_single = spec.name in table.frame.columns
    columns = (spec.name,) if is_single else (f"{spec.name}:min", f"{spec.name}:max")
    found = []
    for column in columns:
        found.append(Expectation(column=column, feature=spec.name, kind="type"))
        if not spec.nullable:
            found.append(Expectation(column=column, feature=spec.name, kind="missing"))
        if spec.name in policy.bounds:
            low, high = policy.bounds[spec.name]
            found.append(Expectation(column=column, feature=spec.name, kind="bounds", low=low, high=high))
            continue
        wild = _wild_range(table.frame[column].drop_nulls().to_numpy())
        if wild is not None:
            found.append(Expectation(column=column, feature=spec.name, kind="wild", low=wild[0], high=wild[1]))
    mean = spec.name if is_single else f"{spec.name}:mean"
    if known is not None and len(known.edges) > 1 and spec.name not in policy.bounds:
        span = (known.edges[-1] - known.edges[0]) * _NUM_KNOWN_SPANS
        found.append(
            Expectation(
                column=mean, feature=spec.name, kind="known_range", low=known.edges[0] - span, high=known.edges[-1] + span
            )
        )
    return found


def _wild_range(number_N: Floats) -> tuple[float, float] | None:
    """The range beyond which a number is a mark; None where nearly all numbers are equal."""
    some = number_N[:: max(1, len(number_N) // 5_000)]
    if len(some) < _MIN_ROWS:
        return None
    low, middle, high = (float(q) for q in np.quantile(some, (0.01, 0.5, 0.99)))
    # marks that are more than 1 % of the rows stand at a quantile themselves: the inner half then says what is usual
    lower, upper = (float(q) for q in np.quantile(some, (0.25, 0.75)))
    half = min((high - low) / 2, _HEAVY_TAIL * (upper - lower)) if upper > lower else (high - low) / 2
    return (middle - _WILD_SPANS * half, middle + _WILD_SPANS * half) if half > 0 else None


_HEAVY_TAIL = 10.0  # a lognormal of sigma 1.5 has its 99 % quantile 10 inner halves off
