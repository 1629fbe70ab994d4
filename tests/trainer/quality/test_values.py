"""Schema, columns, missing values, units: what single values tell."""

from dataclasses import replace

import numpy as np
import pytest
from toy_table import DAY, given, table, table_of

from clipdrift_contract.profile import FeatureSpec, ReferenceProfile
from clipdrift_trainer.profiling import make_profile
from clipdrift_trainer.quality.columns import ColumnsPolicy, check_columns
from clipdrift_trainer.quality.missing import MissingPatternPolicy, MissingPolicy, check_missing, check_missing_pattern
from clipdrift_trainer.quality.schema import SchemaPolicy, check_schema
from clipdrift_trainer.quality.table import Table
from clipdrift_trainer.quality.units import UnitsPolicy, check_units, unit_change
from clipdrift_trainer.tasks.task import vocabularies_of

N = 2_000
GENERATOR = np.random.default_rng(21)
X = GENERATOR.normal(size=N)
YES = (GENERATOR.random(N) < 0.4).astype(float)
SITE = GENERATOR.choice(["north", "south"], N)
SPEED = GENERATOR.lognormal(3, 0.5, N)


def profile_of(columns: dict[str, np.ndarray]) -> ReferenceProfile:
    task = given(columns, YES)
    return make_profile(task, task.rows, np.full((N, 2), 0.5), vocabularies_of(task, task.rows))


def test_a_value_outside_the_given_bounds_is_named_with_its_row() -> None:
    number = X.copy()
    number[[17, 400]] = 99.0

    found = check_schema(table({"x": number}, YES), SchemaPolicy(bounds={"x": (-10.0, 10.0)}))

    assert (found.level, found.rows.tolist(), found.features) == ("warn", [17, 400], ("x",))
    assert "99" in found.words


def test_many_values_outside_the_bounds_reach_the_stop_threshold() -> None:
    assert check_schema(table({"x": X}, YES), SchemaPolicy(bounds={"x": (0.0, 10.0)})).level == "stop"


def test_bounds_hold_for_every_element_of_a_trace() -> None:
    trace = np.random.default_rng(0).normal(size=(N, 4))
    trace[5, 2] = -50.0

    found = check_schema(table({"trace": trace}, YES), SchemaPolicy(bounds={"trace": (-10.0, 10.0)}))

    assert found.rows.tolist() == [5]


def test_a_category_that_is_not_allowed_is_named() -> None:
    site = SITE.copy()
    site[3] = "norht"[:5]

    found = check_schema(table({"site": site}, YES), SchemaPolicy(categories={"site": ("north", "south")}))

    assert (found.level, found.rows.tolist()) == ("warn", [3])


def test_a_missing_number_that_is_not_declared_nullable_breaks_the_schema() -> None:
    task = given({"x": np.where(np.arange(N) == 9, np.nan, X)}, YES)
    task.features = (FeatureSpec(name="x", kind="numeric"),)

    assert check_schema(table_of(task), SchemaPolicy()).rows.tolist() == [9]


def test_marks_such_as_minus_999_are_told_from_heavy_tails() -> None:
    marked = np.where(np.random.default_rng(1).random(N) < 0.02, -999.0, X)
    tail = np.random.default_rng(2).standard_t(1.5, N)

    found = check_schema(table({"marked": marked, "tail": tail}, YES), SchemaPolicy())

    assert (found.level, found.features) == ("warn", ("marked",))


def test_new_categories_are_held_against_what_the_model_in_service_knew() -> None:
    profile = profile_of({"site": SITE})
    moved = np.where(np.arange(N) % 10 == 0, "east", SITE)

    assert check_schema(table({"site": moved}, YES, profile=profile), SchemaPolicy()).level == "warn"
    assert check_schema(table({"site": SITE}, YES, profile=profile), SchemaPolicy()).level == "pass"


def test_numbers_unlike_all_that_the_model_in_service_knew_are_named_and_a_longer_tail_is_not() -> None:
    rain = np.where(np.random.default_rng(8).random(N) < 0.9, 0.0, 0.01 + 0.01 * np.abs(X))
    storm = np.where(np.random.default_rng(9).random(N) < 0.01, 2.0 + X, rain)
    other = np.where(np.random.default_rng(9).random(N) < 0.1, 200.0 + X, rain)
    profile = profile_of({"rain": rain})

    assert check_schema(table({"rain": storm}, YES, profile=profile), SchemaPolicy()).level == "pass"
    assert check_schema(table({"rain": other}, YES, profile=profile), SchemaPolicy()).features == ("rain",)


def test_constant_and_repeated_columns_are_named() -> None:
    renamed = np.where(SITE == "north", "N", "S")
    columns = {"x": X, "same": 3 * X - 7, "fixed": np.ones(N), "site": SITE, "place": renamed, "other": -X + 0.1 * SPEED}

    found = check_columns(table(columns, YES), ColumnsPolicy())

    assert set(found.features) == {"same", "fixed", "place"}


def test_a_constant_element_of_a_trace_is_no_constant_feature() -> None:
    trace = np.random.default_rng(0).normal(size=(N, 3))
    trace[:, 0] = 1.0

    assert check_columns(table({"trace": trace}, YES), ColumnsPolicy()).level == "pass"


def test_gaps_are_held_against_those_of_the_model_in_service() -> None:
    some, more = (np.where(np.random.default_rng(3).random(N) < share, np.nan, X) for share in (0.3, 0.5))
    profile = profile_of({"x": some})

    assert check_missing(table({"x": some}, YES, profile=profile), MissingPolicy()).level == "pass"
    assert check_missing(table({"x": more}, YES, profile=profile), MissingPolicy()).features == ("x",)


def test_a_category_that_only_says_that_it_is_missing_counts_as_missing() -> None:
    site = np.where(np.random.default_rng(3).random(N) < 0.7, "nan", SITE)

    assert check_missing(table({"site": site}, YES), MissingPolicy()).features == ("site",)


def test_rows_that_lack_nearly_everything_are_named_worst_first() -> None:
    columns = {f"x{i}": X.copy() for i in range(4)}
    for i in range(4):
        columns[f"x{i}"][100:160] = np.nan
    columns["x3"][100:130] = 1.0

    found = check_missing(table(columns, YES), MissingPolicy())

    assert found.rows.tolist() == [*range(130, 160), *range(100, 130)]


@pytest.mark.parametrize("classes", [("no", "yes"), ()], ids=["classes", "values"])
def test_gaps_that_follow_the_label_are_found_and_gaps_by_chance_are_not(classes: tuple[str, ...]) -> None:
    generator = np.random.default_rng(4)
    label = YES if classes else X
    by_label = np.where(generator.random(N) < np.where(label > 0, 0.4, 0.03), np.nan, SPEED)
    by_chance = np.where(generator.random(N) < 0.2, np.nan, SPEED)

    found = check_missing_pattern(table({"by_label": by_label, "by_chance": by_chance}, label, classes), MissingPatternPolicy())

    assert found.features == ("by_label",)
    assert check_missing_pattern(table({"by_chance": by_chance}, label, classes), MissingPatternPolicy()).level == "pass"


def test_one_day_without_a_sensor_and_with_many_failures_is_one_piece_of_evidence() -> None:
    task = given({"x": X}, YES)
    is_bad_day = task.rows.time_ms // DAY == 7
    number = np.where(is_bad_day, np.nan, X).astype(np.float32)
    rows = replace(task.rows, features={"x": number}, label=np.where(is_bad_day, 1.0, YES))
    task.rows = rows

    assert check_missing_pattern(table_of(task), MissingPatternPolicy()).level == "pass"


@pytest.mark.parametrize("factor", [1_000.0, 0.001, 3.6, 25.4, 2.54])
def test_a_unit_that_changes_one_day_is_found(factor: float) -> None:
    number = np.where(np.arange(N) > 1_300, SPEED * factor, SPEED)

    found = check_units(table({"speed": number, "x": X}, YES), UnitsPolicy())

    assert found.features == ("speed",)
    assert found.figures["factor"] == pytest.approx(factor, rel=0.1)
    assert "1970-01-14" in found.words


def test_fahrenheit_for_celsius_is_recognised() -> None:
    celsius = np.random.default_rng(5).normal(15, 4, N)
    number = np.where(np.arange(N) > 900, celsius * 1.8 + 32, celsius)

    assert "Celsius to Fahrenheit" in check_units(table({"temp": number}, YES), UnitsPolicy()).words


def test_a_unit_that_changed_since_the_model_in_service_is_found_by_its_profile() -> None:
    found = check_units(table({"speed": SPEED * 1_000}, YES, profile=profile_of({"speed": SPEED})), UnitsPolicy())

    assert found.figures["factor"] == pytest.approx(1_000, rel=0.05)


@pytest.mark.parametrize("kind", ["season", "calendar", "growth", "shift"])
def test_seasons_calendars_growth_and_shifts_are_no_units(kind: str) -> None:
    generator, at = np.random.default_rng(6), np.linspace(0, 1, N)
    number = {
        "season": 40 + 30 * np.sin(np.pi * (at - 0.5)) + generator.normal(0, 6, N),
        "calendar": np.floor(1 + 11.99 * at),
        "growth": np.exp(3 * at) * generator.lognormal(0, 0.3, N),
        "shift": SPEED + np.where(at > 0.6, 60, 0),
    }[kind]

    assert check_units(table({"x": number}, YES), UnitsPolicy()).level == "pass"


def test_zeros_have_no_unit() -> None:
    rain = np.where(np.random.default_rng(7).random(N) < 0.8, 0.0, SPEED)

    assert check_units(table({"rain": np.where(np.arange(N) > 800, rain * 25.4, rain)}, YES), UnitsPolicy()).features == (
        "rain",
    )
    assert unit_change(np.zeros(0), SPEED, UnitsPolicy()) is None


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_a_handful_of_rows_breaks_no_check(num_rows: int) -> None:
    few: Table = table({"x": X[:num_rows], "site": SITE[:num_rows]}, YES[:num_rows])

    for check, policy in (
        (check_schema, SchemaPolicy()), (check_columns, ColumnsPolicy()), (check_missing, MissingPolicy()),
        (check_missing_pattern, MissingPatternPolicy()), (check_units, UnitsPolicy()),
    ):  # fmt: skip
        assert check(few, policy).level in ("pass", "skipped")
