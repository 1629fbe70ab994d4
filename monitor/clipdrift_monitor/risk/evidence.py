"""Shiryaev-Roberts sums: evidence against "nothing is wrong" that may be looked at for ever.

If every factor e_t has conditional mean at most 1 while nothing is wrong, then S_t = (S_{t-1} + 1) e_t grows by at most 1 a
step on average, so E[S_T] <= E[T] for the time T of the first alarm at S >= bound: it takes at least `bound` steps on average
until a false alarm, and at most t / bound false alarms are expected in t steps when the sum restarts after each. A mean of such
sums is again one. A test with many steps a block puts 1 / steps in the place of 1, and its time is counted in blocks.

Bets that neither win nor lose (e = 1: a challenger that foretells what the model does) would bring S to the bound by the mere
passing of time. So each block S loses a share 2 / (bound + 2) first, which brings it to half the bound at most in that case,
costs an alarm after d blocks a factor of exp(-2 d / bound), and can only make false alarms rarer.

Source: Shin, Ramdas, Rinaldo, E-detectors (arXiv 2203.03532), section 2; Shiryaev 1963, Roberts 1966.
"""

import msgspec
import numpy as np

from clipdrift_monitor.windows.window import Floats

_CEILING = 1e150  # far above any bound; keeps the sum finite when nobody restarts it
_LARGEST_LOG = 50.0  # of one factor; what is less likely than e^-50 is as good as impossible
_LARGEST_EXPONENT = 300.0  # e^300 times the ceiling is still a number


class Evidence(msgspec.Struct, kw_only=True):
    """A mixture of sums with its alarm bound. Mutable; its fields are all there is to save and restore.

    Example:
        >>> evidence = Evidence(sums=[0.0, 0.0], bound=8.0)
        >>> [evidence.add(np.array([5.0, 2.5])) for _ in range(2)]
        [False, True]
        >>> [round(one, 3) for one in evidence.sums]  # 4 = (0 + 1) 0.8 5, then 20 = (4 + 1) 0.8 5
        [20.0, 6.0]
    """

    sums: list[float]
    bound: float
    num_steps: int = 0
    weights: list[float] = []  # of the sums, adding up to 1; empty: equal

    def add(self, factors: Floats) -> bool:
        """One step with one factor a sum, each >= 0; whether the mean of the sums has reached the bound."""
        grown = np.minimum((np.asarray(self.sums) + 1.0) * self._kept * factors, _CEILING)
        self.sums = grown.tolist()
        self.num_steps += 1
        return self.level >= self.bound

    def add_all(self, factors_NK: Floats) -> bool:
        """One block of N steps, worth one step of time in all; whether the mean of the sums was at the bound after any of them.

        Example:
            >>> evidence = Evidence(sums=[0.0], bound=2.0)
            >>> evidence.add_all(np.array([[2.0], [2.0], [0.1]]))  # (0.33 2 + 0.33) 2 = 2, less what a block leaves behind
            False
        """
        with np.errstate(divide="ignore"):
            logs_NK = np.log(factors_NK)
        return bool((self.add_logs(logs_NK) >= self.bound).any())

    def add_logs(self, logs_NK: Floats) -> Floats:
        """One block of N steps by the logarithms of their factors; the mean of the sums after each step, shape [N].

        S_t = e^L_t (S_0 + inflow sum_{i<=t} e^-L_{i-1}), L the running sum of the logarithms; in pieces that cannot overflow.
        A logarithm below -50 counts as -50.
        """
        num_steps = len(logs_NK)
        self.num_steps += 1
        if not num_steps:
            return np.zeros(0)
        weights_K = np.asarray(self.weights or [1.0 / len(self.sums)] * len(self.sums))
        sums_K, inflow = np.asarray(self.sums) * self._kept, self._kept / num_steps
        logs_NK = np.maximum(logs_NK, -_LARGEST_LOG)
        piece = max(1, int(_LARGEST_EXPONENT / max(1e-9, float(np.abs(logs_NK).max()))))
        level_N = np.empty(num_steps)
        for first in range(0, num_steps, piece):
            grown_PK = np.cumsum(logs_NK[first : first + piece], axis=0)
            earlier_PK = np.exp(-(grown_PK - logs_NK[first : first + piece]))
            sums_PK = np.exp(grown_PK) * (sums_K + inflow * np.cumsum(earlier_PK, axis=0))
            level_N[first : first + piece] = sums_PK @ weights_K
            sums_K = np.minimum(sums_PK[-1], _CEILING)
        self.sums = sums_K.tolist()
        return level_N

    @property
    def _kept(self) -> float:
        """The share of a sum that a block leaves; S = (S + 1) bound / (bound + 2) stands still at bound / 2."""
        return 1.0 / (1.0 + 2.0 / self.bound)

    @property
    def level(self) -> float:
        """The weighted mean of the sums."""
        if not self.sums:
            return 0.0
        if not self.weights:
            return sum(self.sums) / len(self.sums)
        return sum(weight * one for weight, one in zip(self.weights, self.sums, strict=True))

    def rebudget(self, bound: float) -> None:
        """Go on under another bound: what was gathered keeps its share of the bound, and so its worth.

        Raises:
            ValueError: The bound is not above 0.

        Example:
            >>> evidence = Evidence(sums=[30.0], bound=60.0, num_steps=20)
            >>> evidence.rebudget(120.0)
            >>> evidence.sums, evidence.num_steps
            ([60.0], 40)
        """
        if not bound > 0:
            raise ValueError(f"a bound must be > 0, got {bound!r}")
        if bound == self.bound:
            return
        scale = bound / self.bound
        self.sums = [min(one * scale, _CEILING) for one in self.sums]
        self.num_steps = round(self.num_steps * scale)  # what chance alone would have brought by now
        self.bound = bound

    def restart(self) -> None:
        """Begin again with no evidence."""
        self.sums = [0.0] * len(self.sums)
        self.num_steps = 0
