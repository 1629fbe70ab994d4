"""Numbers and times as Grafana writes them, by unit and decimals."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

_PARTS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " K"))
_WEEK = 86_400 * 7
_YEAR = 86_400 * 365
_SPANS = ((_YEAR, " years"), (_WEEK, " weeks"), (86_400, " days"), (3_600, " hours"), (60, " mins"), (1, " s"))
_TIME_STEPS = (
    60, 300, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 172_800, _WEEK, 2 * _WEEK, 4 * _WEEK, 8 * _WEEK, 13 * _WEEK,
    26 * _WEEK, _YEAR,
)  # fmt: skip


def shown(value: float, unit: str, decimals: int) -> str:
    """A number with its unit.

    >>> shown(0.8612, "percentunit", 1), shown(9000, "s", 1), shown(0.0021, "s", 1), shown(12345, "locale", 0)
    ('86.1%', '2.5 hours', '2.1 ms', '12,345')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return _WRITERS.get(unit, _plain)(value, decimals)


def _plain(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}"


def _share(value: float, decimals: int) -> str:
    return f"{100 * value:.{decimals}f}%"


def _locale(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}"


def _short(value: float, decimals: int) -> str:
    for factor, sign in _PARTS:
        if abs(value) >= factor:
            return f"{value / factor:.{max(decimals, 1)}f}{sign}"
    return _plain(value, decimals)


def _bytes(value: float, decimals: int) -> str:
    for power, sign in ((4, " TiB"), (3, " GiB"), (2, " MiB"), (1, " KiB")):
        if abs(value) >= 1024**power:
            return f"{value / 1024**power:.{max(decimals, 1)}f}{sign}"
    return f"{value:.{decimals}f} B"


def _seconds(value: float, decimals: int) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    if size < 1e-3:
        return f"{value * 1e6:.{min(decimals, 1)}f} µs"
    if size < 1:
        return f"{value * 1e3:.{min(decimals, 1)}f} ms"
    factor, word = next((one for one in _SPANS if size >= one[0]), _SPANS[-1])
    return f"{value / factor:.{decimals}f}{word}".replace("1.0 days", "1.0 day")


def _scientific(value: float, decimals: int) -> str:
    return "0" if value == 0 else f"{value:.{decimals}e}"


_WRITERS: dict[str, Callable[[float, int], str]] = {
    "percentunit": _share, "locale": _locale, "short": _short, "s": _seconds, "bytes": _bytes, "sci": _scientific,
}  # fmt: skip


def ticks(low: float, high: float, num: int, unit: str = "none") -> list[float]:
    """Round numbers from `low` to `high`, about `num` of them; times go by minutes, hours and days.

    >>> ticks(0.0, 1.0, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> [shown(one, "s", 0) for one in ticks(0.0, 86_400 * 200, 4, "s")]
    ['0 s', '8 weeks', '16 weeks', '24 weeks']
    """
    if high <= low:
        return [low]
    raw = (high - low) / max(1, num)
    if unit == "s" and raw >= 60:
        step = float(next((one for one in _TIME_STEPS if one >= raw), _TIME_STEPS[-1]))
    else:
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * index, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def decimals_for(marks: list[float], unit: str, decimals: int) -> int:
    """As many as the marks need to differ, at least `decimals`."""
    while decimals < 8 and len({shown(one, unit, decimals) for one in marks}) < len(set(marks)):
        decimals += 1
    return decimals


def time_ticks(start: float, end: float, num: int) -> list[tuple[float, str]]:
    """Moments in UTC with their words, about `num` of them."""
    span = end - start
    if span > 86_400 * 75:
        return list(_months(start, end, max(1, round(span / (86_400 * 30.4) / max(1, num)))))
    steps = (60, 300, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800, 1_209_600)
    step = next((one for one in steps if one >= span / max(1, num)), steps[-1])
    style = "%H:%M" if step < 86_400 else "%m/%d"
    first = math.ceil(start / step)
    return [
        (float(index * step), datetime.fromtimestamp(index * step, UTC).strftime(style))
        for index in range(first, math.floor(end / step) + 1)
    ]


def _months(start: float, end: float, every: int) -> list[tuple[float, str]]:
    begun = datetime.fromtimestamp(start, UTC)
    index = begun.year * 12 + begun.month - 1
    found: list[tuple[float, str]] = []
    while True:
        moment = datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)
        if moment.timestamp() > end:
            return found
        if moment.timestamp() >= start:
            found.append((moment.timestamp(), moment.strftime("%Y-%m")))
        index += every
