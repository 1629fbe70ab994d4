"""Keeps scrapes with their event times, and writes one OpenMetrics file that `promtool tsdb create-blocks-from
openmetrics` turns into a year of Prometheus."""

import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

_TYPES = {"untyped": "unknown"}  # the one type that OpenMetrics calls otherwise
_POINT_PARTS = ("_total", "_bucket", "_sum", "_count", "_info")
_WITHIN_A_POINT = re.compile(r'(?<=[{,])(?:le|quantile)="[^"]*",?')


class _Series:
    """The samples of one series: 16 bytes each, however long its labels are."""

    def __init__(self) -> None:
        self.times_ms = array("q")
        self.values = array("d")

    def add(self, time_ms: int, value: float, name: str) -> None:
        if self.times_ms and self.times_ms[-1] >= time_ms:
            raise ValueError(f"{name} must come once a time and in time order, got {time_ms} after {self.times_ms[-1]}")
        self.times_ms.append(time_ms)
        self.values.append(value)


class _Family:
    """One metric family: its head lines and its series, in the order in which they came."""

    def __init__(self) -> None:
        self.type = "unknown"
        self.help = ""
        self.series: dict[str, _Series] = {}

    def lines(self, name: str) -> Iterator[str]:
        """OpenMetrics lines. The series of one histogram or summary stand together at each time, as the format asks for."""
        base = name.removesuffix("_total") if self.type == "counter" else name
        yield f"# HELP {base} {self.help}\n"
        yield f"# TYPE {base} {self.type}\n"
        for group in self._groups():
            times_ms = sorted({time_ms for _, series in group for time_ms in series.times_ms})
            places = [0] * len(group)
            for time_ms in times_ms:
                for index, (series_name, series) in enumerate(group):
                    place = places[index]
                    if place < len(series.times_ms) and series.times_ms[place] == time_ms:
                        places[index] = place + 1
                        yield f"{series_name} {_number(series.values[place])} {time_ms / 1000:.3f}\n"

    def _groups(self) -> Iterable[list[tuple[str, _Series]]]:
        if self.type not in ("histogram", "summary"):
            return [[item] for item in self.series.items()]
        groups: dict[str, list[tuple[str, _Series]]] = {}
        for name, series in self.series.items():
            groups.setdefault(_point(name), []).append((name, series))
        return groups.values()


class ScrapeLog:
    """Collects text expositions (prometheus_client's `generate_latest`) and writes them on `close`.

    Memory grows by 16 bytes a sample. `_created` series are left out: they are no measurement and double the counters.

    Args:
        path: The OpenMetrics file; its folder must exist.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.om"
        >>> log = ScrapeLog(path)
        >>> log.add('# HELP rows_total Rows.\\n# TYPE rows_total counter\\nrows_total{model="m"} 3.0\\n', 60_000)
        >>> log.close()
        >>> print(path.read_text(), end="")
        # HELP rows Rows.
        # TYPE rows counter
        rows_total{model="m"} 3.0 60.000
        # EOF
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._families: dict[str, _Family] = {}

    def add(self, text: str, time_ms: int, *, only: str = "") -> None:
        """Take in one scrape. Scrapes of several processes may share a time if they share no series.

        Args:
            text: The exposition.
            time_ms: When it was.
            only: Metrics whose names begin otherwise are left out: those that another process of the same time also tells.

        Raises:
            ValueError: The scrape is older than one before it, repeats a series, or has a line that is no sample.
        """
        families = self._families
        current, name = None, ""
        for line in text.splitlines():
            if line.startswith("# "):
                _, keyword, name, rest = (*line.split(" ", 3), "")[:4]
                if not name.startswith(only) or not _is_kept(name, families):
                    current = None
                    continue
                current = families.setdefault(name, _Family())
                if keyword == "TYPE":
                    current.type = _TYPES.get(rest, rest)
                elif keyword == "HELP":
                    current.help = rest
            elif line and current is not None:
                self._sample(current, line, time_ms)

    def close(self) -> None:
        """Write the file. The log is empty afterwards."""
        with self._path.open("w", encoding="utf-8") as file:
            for name, family in self._families.items():
                if family.series:
                    file.writelines(family.lines(name))
            file.write("# EOF\n")
        self._families = {}

    @staticmethod
    def _sample(family: _Family, line: str, time_ms: int) -> None:
        name, _, value = line.rpartition(" ")
        try:
            number = float(value)
        except ValueError as error:
            raise ValueError(f"a sample must be like `name{{labels}} value`, no timestamp, got {line[:120]!r}") from error
        series = family.series.get(name)
        if series is None:
            series = family.series[name] = _Series()
        series.add(time_ms, number, name)


def _is_kept(name: str, families: dict[str, _Family]) -> bool:
    base = name.removesuffix("_created")
    return base == name or (base not in families and base + "_total" not in families)


def _point(series_name: str) -> str:
    """What the series of one histogram or summary have in common: their labels without the bucket's or quantile's."""
    metric, _, labels = series_name.partition("{")
    for part in _POINT_PARTS:
        metric = metric.removesuffix(part)
    return metric + _WITHIN_A_POINT.sub("", "{" + labels if labels else "").replace(",}", "}").replace("{}", "")


def _number(value: float) -> str:
    """As Go and OpenMetrics spell it."""
    if value != value:
        return "NaN"
    return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, repr(value))
