"""What a feature's bins would look like if its values came in another unit, moved by a constant, or with another sign.

The reference profile knows how many rows lie between its edges and nothing finer, so rows are taken as evenly spread within a
bin, and the two open ends as exponential tails as wide as the bins beside them. Axes: K bins, E = K - 1 edges.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clipdrift_monitor.windows.window import Floats


class Conversion(NamedTuple):
    """value' = scale * value + offset."""

    words: str
    scale: float
    offset: float = 0.0


UNITS: tuple[Conversion, ...] = (
    Conversion("100 times as large, as euros told in cents or a share told in per cent", 100.0),
    Conversion("a hundredth, as cents told in euros or per cent told as a share", 0.01),
    Conversion("1,000 times as large, as seconds told in milliseconds or kilometres in metres", 1000.0),
    Conversion("a thousandth, as milliseconds told in seconds or metres in kilometres", 0.001),
    Conversion("60 times as large, as minutes told in seconds", 60.0),
    Conversion("a sixtieth, as seconds told in minutes", 1 / 60),
    Conversion("3,600 times as large, as hours told in seconds", 3600.0),
    Conversion("a 3,600th, as seconds told in hours", 1 / 3600),
    Conversion("degrees Celsius told in Fahrenheit", 1.8, 32.0),
    Conversion("degrees Fahrenheit told in Celsius", 5 / 9, -160 / 9),
    Conversion("degrees Celsius told in Kelvin", 1.0, 273.15),
    Conversion("Kelvin told in degrees Celsius", 1.0, -273.15),
    Conversion("2.54 times as large, as inches told in centimetres", 2.54),
    Conversion("1/2.54, as centimetres told in inches", 1 / 2.54),
    Conversion("3.28 times as large, as metres told in feet", 3.28084),
    Conversion("1/3.28, as feet told in metres", 1 / 3.28084),
    Conversion("1.61 times as large, as miles told in kilometres", 1.609344),
    Conversion("1/1.61, as kilometres told in miles", 1 / 1.609344),
    Conversion("2.2 times as large, as kilograms told in pounds", 2.204623),
    Conversion("1/2.2, as pounds told in kilograms", 1 / 2.204623),
    Conversion("with the other sign", -1.0),
)


def converted(edges_E: Floats, shares_K: Floats, conversion: Conversion) -> Floats:
    """Shares of the bins after `conversion`; shape [K], sums to 1.

    Args:
        edges_E: Ascending edges.
        shares_K: Shares of the bins before it, each > 0.
        conversion: What is done to each value.

    Source: F'(x) = F((x - offset) / scale), or 1 - F of it where the scale is negative, F the piecewise distribution function.

    Example:
        >>> edges, shares = np.array([0.0, 1.0, 2.0, 3.0]), np.full(5, 0.2)
        >>> converted(edges, shares, Conversion("moved up by one bin", 1.0, 1.0)).round(2).tolist()
        [0.07, 0.13, 0.2, 0.2, 0.4]
    """
    below_E = _distribution(edges_E, shares_K, (edges_E - conversion.offset) / conversion.scale)
    if conversion.scale < 0:
        below_E = 1.0 - below_E
    return np.diff(np.concatenate([[0.0], below_E, [1.0]]))


def shifts(edges_E: Floats) -> list[Conversion]:
    """Offsets up to the width of all closed bins, in twentieths of it, both ways."""
    width = float(edges_E[-1] - edges_E[0])
    steps: Sequence[float] = [i / 20 for i in range(-20, 21) if i]
    return [Conversion(f"{width * step:+.3g} added to each", 1.0, width * step) for step in steps]


def _distribution(edges_E: Floats, shares_K: Floats, at_E: Floats) -> Floats:
    below_E = np.cumsum(shares_K)[:-1]
    inner = np.interp(at_E, edges_E, below_E)
    left, right = _tail_width(edges_E, shares_K, 0), _tail_width(edges_E, shares_K, -1)
    low = below_E[0] * np.exp(np.minimum(0.0, at_E - edges_E[0]) / left)
    high = 1.0 - shares_K[-1] * np.exp(np.minimum(0.0, edges_E[-1] - at_E) / right)
    found: Floats = np.where(at_E < edges_E[0], low, np.where(at_E > edges_E[-1], high, inner))
    return found


def _tail_width(edges_E: Floats, shares_K: Floats, end: int) -> float:
    """Of the exponential that goes on from the bin at this end with the density that the bin beside it has."""
    if len(edges_E) < 2:
        return max(1.0, abs(float(edges_E[0])))
    beside = 1 if end == 0 else -2
    width = float(edges_E[1] - edges_E[0]) if end == 0 else float(edges_E[-1] - edges_E[-2])
    return max(1e-9, width * float(shares_K[end]) / max(float(shares_K[beside]), 1e-9))
