"""Detectors on bins along a number line: Kolmogorov-Smirnov and Wasserstein. Missing values lie on no line and are left out.

Axes: K bins, C = K - 1 cuts between them.
"""

import numpy as np

from clipdrift_monitor.detectors.detector import BinKind, Bins, Drift, Floats, nothing
from clipdrift_monitor.detectors.null import bridge_p_value

_ON_LINE: frozenset[BinKind] = frozenset(("ordered",))


class KolmogorovSmirnov:
    """Largest difference of the cumulative shares at the cuts between bins, from 0 to 1.

    At most the difference over all values, which rows would give: what happens within a bin is not seen. The null is that of
    the cuts and not Kolmogorov's, which is for values without ties and would find less.

    Source: Smirnov 1939; the bridge at fixed cuts, Wood, Altavela 1978.

    Example:
        >>> bins = Bins(np.array([500.0, 300.0, 200.0]), np.array([40.0, 30.0, 30.0]), kind="ordered")
        >>> round(KolmogorovSmirnov().compare(bins).score, 3)
        0.1
    """

    name = "ks"
    kinds = _ON_LINE
    min_effect = 0.1

    def compare(self, bins: Bins) -> Drift:
        line = bins.checked().on_line
        if line.is_empty:
            return nothing(line)
        score = float(np.abs(_differences(line)).max(initial=0.0))
        return Drift(score=score, p_value=bridge_p_value(line, score), num_rows=line.num_rows)


class Wasserstein:
    """Mean distance that values have moved, in standard deviations of the reference, from 0 up; values of a bin count as lying
    at its middle.

    The two outer bins are open: their middle is put half the next bin's width outside. Without edges, bins lie 1 apart.

    Source: W1 = sum over cuts of |F - G| times the distance of the neighbouring middles (Vallender 1974), over the deviation of
    the middles.

    Example:
        >>> bins = Bins(np.array([250.0, 250.0, 250.0, 250.0]), np.array([0.0, 50.0, 50.0, 50.0]), "ordered", (-1.0, 0.0, 1.0))
        >>> round(Wasserstein().compare(bins).score, 3)
        0.447
    """

    name = "wasserstein"
    kinds = _ON_LINE
    min_effect = 0.1

    def compare(self, bins: Bins) -> Drift:
        line = bins.checked().on_line
        if line.is_empty:
            return nothing(line)
        middle_K = middles(line)
        share_K = line.reference_K / line.reference_K.sum()
        deviation = float(np.sqrt((share_K * (middle_K - share_K @ middle_K) ** 2).sum()))
        if not deviation:  # all of the reference lies in one bin: its width is the only measure there is
            deviation = float(np.diff(middle_K).min(initial=np.inf))
        weights_C = np.diff(middle_K) / deviation
        score = float(np.abs(_differences(line)) @ weights_C)
        return Drift(score=score, p_value=bridge_p_value(line, score, tuple(weights_C.tolist())), num_rows=line.num_rows)


def middles(bins: Bins) -> Floats:
    """Where the values of each bin are taken to lie, shape [K].

    Raises:
        ValueError: There are edges, and not one fewer than bins.
    """
    num_bins = len(bins.reference_K)
    if bins.edges and len(bins.edges) != num_bins - 1:
        raise ValueError(f"edges must be one fewer than the {num_bins} bins, got {len(bins.edges)}")
    if len(bins.edges) < 2:
        return np.arange(num_bins, dtype=float)
    edges_C = np.asarray(bins.edges, float)
    inner = (edges_C[1:] + edges_C[:-1]) / 2
    return np.concatenate(
        [[edges_C[0] - (edges_C[1] - edges_C[0]) / 2], inner, [edges_C[-1] + (edges_C[-1] - edges_C[-2]) / 2]]
    )


def _differences(bins: Bins) -> Floats:
    off_K = bins.current_K / bins.current_K.sum() - bins.reference_K / bins.reference_K.sum()
    return np.cumsum(off_K)[:-1]
