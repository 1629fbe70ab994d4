"""A number in another unit than before: the same shape, a factor away, from one day on or since the model in service."""

from collections.abc import Iterator

import msgspec
import numpy as np

from clipdrift_contract.profile import FeatureProfile
from clipdrift_trainer.quality.finding import Finding, listed, passed
from clipdrift_trainer.quality.table import Column, Floats, Ints, Table

_MIN_ROWS = 100
_MIN_DISTINCT = 10
_TOLERANCE = 0.04  # of a known factor: the middle of a hundred numbers is not known better
_LEAST_FACTOR = 2.0  # a season or a warm front may well bring a smaller one: miles and knots are not told from them
_NEAR_DAYS = 5
_CRITICAL = 1.63  # of the Kolmogorov-Smirnov distance at 1 %, in units of sqrt(1/n + 1/m)
_KNOWN_FACTORS = (
    10, 100, 1e3, 1e6, 60, 3600, 24, 1440, 86_400, 7,  # prefixes and times
    2.54, 25.4, 3.28084, 1.609344, 2.204623, 28.34952, 3.785412, 1.943844, 3.6, 2.236936, 14.50377, 33.86389, 57.29578,
)  # fmt: skip
"""inch, foot, mile, pound, ounce, gallon, knot, m/s in km/h and mph, bar in psi, inHg in hPa, radian."""
_CELSIUS = (1.8, 32.0)  # Fahrenheit = 1.8 Celsius + 32
_KELVIN = (1.0, 273.15)


class UnitsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that became another number by a factor, while their distribution kept its shape."""

    enabled: bool = True
    """Off: not looked for."""
    least_distance: float = 0.5
    """Distance of the two distributions (Kolmogorov-Smirnov, 0..1) before the factor is taken out: below it nothing is said."""
    most_distance: float = 0.15
    """Distance after the factor is taken out: above it the shape is another one, and it is drift, not a unit."""
    any_factor: float = 5.0
    """A factor of this size, either way, counts also where it is no known conversion and does not come from one row to the
    next."""

    def __post_init__(self) -> None:
        if not 0 <= self.most_distance < self.least_distance <= 1:
            raise ValueError(
                f"units need 0 <= most_distance < least_distance <= 1, got {self.most_distance!r} and {self.least_distance!r}"
            )
        if not self.any_factor > 1:
            raise ValueError(f"units.any_factor must be > 1, got {self.any_factor!r}")


def check_units(table: Table, policy: UnitsPolicy) -> Finding:
    """Each number against the profile of the model in service, and its rows before and after the moment at which it moved most.

    Zeros are left out: they are zero in every unit. A change stops only in mode enforce.
    """
    found: list[tuple[Column, float, str]] = []
    for column in table.columns:
        if not column.is_category and column.name in (column.feature, f"{column.feature} (mean)"):
            found += [(column, factor, words) for factor, words in _changes(table, column, policy)][:1]
    if not found:
        return passed("no number changed its unit")
    return Finding(
        level="stop",
        words=f"{listed([f'{column.name} {words}' for column, _, words in found])}: was its unit changed? Convert it in load()",
        figures={"factor": found[0][1]},
        features=tuple(dict.fromkeys(column.feature for column, *_ in found)),
    )


def _changes(table: Table, column: Column, policy: UnitsPolicy) -> Iterator[tuple[float, str]]:
    is_used = np.isfinite(column.values) & (column.values != 0)
    value = column.values[is_used]
    if len(value) < _MIN_ROWS:
        return
    day = table.days[table.sample[is_used]]
    cut = _moved_most(value)
    change = (
        unit_change(value[:cut], value[cut:], policy, _LEAST_FACTOR)
        if cut and _is_abrupt(value, day, cut) and _days_agree(value, day, cut)
        else None
    )
    if change is not None:
        since = np.datetime64(int(day[cut]), "D")
        yield change[0], f"{change[1]} from {since} on"
    known = table.profile_of(column.feature)
    before = _values_of(known) if known is not None else np.zeros(0)
    change = unit_change(before, value, policy) if len(before) >= _MIN_ROWS else None
    if change is not None:
        yield change[0], f"{change[1]} since the model in service was trained"


def unit_change(
    before: Floats, after: Floats, policy: UnitsPolicy, any_factor: float | None = None
) -> tuple[float, str] | None:
    """Factor and words where `after` is `before` in another unit; None where it is not, or cannot be told.

    Args:
        before: Numbers, zeros left out.
        after: The same.
        policy: How far the distributions must be apart before, and may be after, the factor is taken out.
        any_factor: Least factor that need not be a known conversion; None: the policy's.

    Example:
        >>> metres = np.random.default_rng(0).lognormal(size=500)
        >>> unit_change(metres, metres * 1000, UnitsPolicy())[1]
        'is 1000 times as large'
        >>> unit_change(metres, metres + 20, UnitsPolicy()) is None     # moved, and not by a factor
        True
    """
    if min(len(before), len(after)) < _MIN_ROWS or min(_num_values(before), _num_values(after)) < _MIN_DISTINCT:
        return None
    if _distance(before, after) < policy.least_distance:
        return None
    shares = np.linspace(0.1, 0.9, 17)
    before_Q, after_Q = np.quantile(before, shares), np.quantile(after, shares)
    # two samples of one distribution lie this far apart by chance alone, one standard error or so
    most_distance = policy.most_distance + float(np.sqrt(1 / len(before) + 1 / len(after)))
    converted = _conversion(before, after, before_Q, after_Q, most_distance)
    if converted is not None:
        return converted
    factor = float(np.median(after_Q[before_Q != 0] / before_Q[before_Q != 0]))
    if not factor > 0 or _distance(before * factor, after) > most_distance:
        return None
    size = max(factor, 1 / factor)
    is_known = size >= _LEAST_FACTOR and any(abs(size / known - 1) <= _TOLERANCE for known in _KNOWN_FACTORS)
    if not is_known and size < (any_factor or policy.any_factor):
        return None
    return factor, f"is {factor:.4g} times as large"


def _num_values(value: Floats) -> int:
    """How many values differ by more than a hundredth of the range (1 % to 99 %): a calendar's are few, also with noise."""
    low, high = np.quantile(value, (0.01, 0.99))
    return len(np.unique(np.round((value - low) / (high - low) * 100))) if high > low else 1


def _conversion(
    before: Floats, after: Floats, before_Q: Floats, after_Q: Floats, most_distance: float
) -> tuple[float, str] | None:
    """Temperatures, whose units differ by a constant too."""
    for (slope, offset), words in ((_CELSIUS, "Celsius to Fahrenheit"), (_KELVIN, "Celsius to Kelvin")):
        for is_forward in (True, False):
            first, second = (before_Q, after_Q) if is_forward else (after_Q, before_Q)
            fitted = float(np.polyfit(first, second, 1)[0]) if first.std() > 0 else 0.0
            if abs(fitted / slope - 1) > 2 * _TOLERANCE or abs(np.median(second - slope * first) - offset) > 0.1 * offset:
                continue
            image = before * slope + offset if is_forward else (before - offset) / slope
            if _distance(image, after) <= most_distance:
                named = words if is_forward else " to ".join(reversed(words.split(" to ")))
                return slope if is_forward else 1 / slope, f"looks converted from {named}"
    return None


def _is_abrupt(value: Floats, day: Ints, cut: int) -> bool:
    """A unit changes from one row to the next, a season does not: the days next to the cut must differ by half as much at least
    as all rows before and after it do.

    Five days on each side (or a tenth of all rows), since a front changes the wind from one hour to the next.
    """
    first, last = np.searchsorted(day, day[cut] - _NEAR_DAYS), np.searchsorted(day, day[cut] + _NEAR_DAYS, side="right")
    tenth = len(value) // 10
    first = min(max(int(first), cut - tenth), max(0, cut - _MIN_ROWS))
    last = max(min(int(last), cut + tenth), cut + _MIN_ROWS)
    whole = np.median(value[cut:]) - np.median(value[:cut])
    local = np.median(value[cut:last]) - np.median(value[first:cut])
    return bool(abs(local) >= abs(whole) / 2 and local * whole > 0)


def _days_agree(value: Floats, day: Ints, cut: int) -> bool:
    """Rows of a day hang together, rain above all: the medians of the days before and after must differ beyond chance at 1 %.

    Source: Kolmogorov-Smirnov for two samples, critical distance 1.63 sqrt(1/n + 1/m).
    """
    medians = [
        np.array([np.median(part) for part in np.split(side, np.flatnonzero(np.diff(days)) + 1)])
        for side, days in ((value[:cut], day[:cut]), (value[cut:], day[cut:]))
    ]
    return _distance(*medians) >= _CRITICAL * float(np.sqrt(sum(1 / len(one) for one in medians)))


def _moved_most(value: Floats) -> int:
    """Where to cut so that the means of log |value| before and after differ most, in standard errors; 0: nowhere.

    Source: the cumulative-sum statistic |S_t| / sqrt(t (n - t)), over the inner 90 % of t.
    """
    log_T = np.log(np.abs(value))
    sum_T = np.cumsum(log_T - log_T.mean())[:-1]
    num = len(value)
    t = np.arange(1, num)
    statistic_T = np.abs(sum_T) / np.sqrt(t * (num - t))
    inner = (t >= max(_MIN_ROWS, num // 20)) & (t <= num - max(_MIN_ROWS, num // 20))
    return int(t[inner][statistic_T[inner].argmax()]) if inner.any() else 0


def _distance(first: Floats, second: Floats) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    first, second = np.sort(first), np.sort(second)
    both = np.concatenate([first, second])
    below = [np.searchsorted(one, both, side="right") / len(one) for one in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _values_of(known: FeatureProfile) -> Floats:
    """Numbers spread like the profile's bins, zeros left out; the open bins at both ends are as wide as their neighbours."""
    edges = np.asarray(known.edges)
    if len(edges) < _MIN_DISTINCT - 1:
        return np.zeros(0)
    all_edges = np.concatenate([[2 * edges[0] - edges[1]], edges, [2 * edges[-1] - edges[-2]]])
    count = np.asarray(known.counts, float)
    num_B = np.round(count / count.sum() * 1_000).astype(int) if count.sum() else np.zeros(len(count), int)
    pieces = [
        np.linspace(low, high, int(num), endpoint=False)
        for low, high, num in zip(all_edges, all_edges[1:], num_B, strict=False)
        if num
    ]
    value = np.concatenate(pieces) if pieces else np.zeros(0)
    used: Floats = value[value != 0]
    return used
