"""Shiryaev-Roberts sums: evidence against "nothing is wrong" that may be looked at for ever.

If every factor e_t has conditional mean at most 1 while nothing is wrong, then S_t = (S_{t-1} + 1) e_t grows by at most 1 a
step on average, so E[S_T] <= E[T] for the time T of the first alarm at S >= bound: it takes at least `bound` steps on average
until a false alarm, and at most t / bound false alarms are expected in t steps when the sum restarts after each. A mean of such
sums is again one. A test with many steps a block puts 1 / steps in the place of 1, and its time is counted in blocks.

Source: Shin, Ramdas, Rinaldo, E-detectors (arXiv 2203.03532), section 2; Shiryaev 1963, Roberts 1966.
"""

import msgspec
import numpy as np

from clipdrift_monitor.windows.window import Floats

_CEILING = 1e150  # far above any bound; keeps the sum finite when nobody restarts it


class Evidence(msgspec.Struct, kw_only=True):
    """A mixture of sums with its alarm bound. Mutable; its fields are all there is to save and restore.

    Example:
        >>> evidence = Evidence(sums=[0.0, 0.0], bound=3.0)
        >>> [evidence.add(np.array([2.0, 1.0])) for _ in range(2)]
        [False, True]
        >>> round(evidence.level, 2)
        4.0
    """

    sums: list[float]
    bound: float
    num_steps: int = 0
    weights: list[float] = []  # of the sums, adding up to 1; empty: equal

    def add(self, factors: Floats) -> bool:
        """One step with one factor a sum, each >= 0; whether the mean of the sums has reached the bound."""
        grown = np.minimum((np.asarray(self.sums) + 1.0) * factors, _CEILING)
        self.sums = grown.tolist()
        self.num_steps += 1
        return self.level >= self.bound

    def add_all(self, factors_NK: Floats) -> bool:
        """One block of N steps, worth one step of time in all; whether the mean of the sums was at the bound after any of them.

        Example:
            >>> evidence = Evidence(sums=[0.0], bound=2.0)
            >>> evidence.add_all(np.array([[2.0], [2.0], [0.1]]))  # (0.33 2 + 0.33) 2 = 2
            True
        """
        weights = self.weights or [1.0 / len(self.sums)] * len(self.sums)
        sums, inflow, is_reached = self.sums, 1.0 / max(1, len(factors_NK)), False
        for factors in factors_NK.tolist():  # plain floats: a few numbers a step are quicker without arrays
            sums = [min((one + inflow) * factor, _CEILING) for one, factor in zip(sums, factors, strict=True)]
            is_reached = is_reached or sum(w * one for w, one in zip(weights, sums, strict=True)) >= self.bound
        self.sums = sums
        self.num_steps += 1
        return is_reached

    @property
    def level(self) -> float:
        """The weighted mean of the sums."""
        return float(np.average(self.sums, weights=self.weights or None)) if self.sums else 0.0

    def restart(self) -> None:
        """Begin again with no evidence."""
        self.sums = [0.0] * len(self.sums)
        self.num_steps = 0
