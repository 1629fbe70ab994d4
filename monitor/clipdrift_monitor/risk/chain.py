"""Label by label: has the error rate risen above what validation allows, where errors hang together from one to the next?

Axes: N labels of a block in time order, K alternatives.

Both hypotheses are first-order Markov chains with the lag-1 correlation rho of validation, P(error | last) = p + rho (last -
p), so errors that come in runs are no evidence. Alternative k is a rise by u_k standard deviations of one label. It is tested
not against the validated rate but against an upper bound of it, and each alternative has its own: a rise that takes n labels
to prove is compared with a rate that n_0 validated labels must have told apart from it. With s = sqrt(p (1 - p) (1 + rho) /
(1 - rho)) a two-sample test at the evidence that n labels give, s c sqrt(1 / n + 1 / n_0), is c s / sqrt(n) above p + z s /
sqrt(n_0) with

    z = c (sqrt(1 + n_0 / n) - sqrt(n_0 / n)),   n = c^2 s^2 / (rise)^2,   c = 3.5.

So a break is compared with the rate itself, a small rise with a bound that is up to c standard errors above it.

Blocks (days) may differ beyond the chain: F, their variance over what the chain gives. What is proven of it (F over its 85 %
quantile by chance, 1 at least) widens s^2 and takes the same root of each likelihood ratio, which can only make false alarms
rarer when it was not needed (Jensen). Where blocks differ for certain (F beyond its 99.9 % quantile, later its 99.999 %) a
label is no unit of evidence: the test rests, and blocks are judged as wholes.

Source: Shiryaev-Roberts sums as in Shin, Ramdas, Rinaldo (arXiv 2203.03532). Own: the bound for each alternative, and the root;
what they keep is measured by bench/detectors.py.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_monitor.windows.window import Floats

_EVIDENCE = 3.5  # c: standard errors that a rise must be above chance; chosen on other seeds than are reported
_RATIO = 1.65  # from one alternative to the next
_SMALLEST, _LARGEST = 5.3, 1.3  # rises in standard deviations of a label: the smallest times 1 / sqrt(validated labels)
_HIGHEST = 0.97  # error rate of an alternative
_WEIGHT_OF_DIFFERENCE = 2 / 3  # a difference of neighbouring blocks shares its blocks with two others
_Z85, _Z999, _Z99999 = 1.0364, 3.0902, 4.2649


class ErrorRate(msgspec.Struct, frozen=True, kw_only=True):
    """The error rate that was validated."""

    rate: float
    num_labels: float
    lag1: float = 0.0
    inflation: float = 1.0
    """Variance of the blocks' error rates over what the chain gives by chance."""
    num_blocks: int = 0

    @property
    def chain_inflation(self) -> float:
        """Variance of a mean of errors over that of independent ones, by the lag alone."""
        return (1 + self.lag1) / (1 - self.lag1)


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How much blocks differ beyond the chain: of validation, and then of production from block to block (a lasting rise is one
    difference, so it does not count as spread)."""

    squares: float
    degrees: float
    last_rate: float | None = None

    @property
    def inflation(self) -> float:
        return self.squares / self.degrees if self.degrees else 1.0

    @property
    def proven(self) -> float:
        """What is proven of the inflation at 85 %, at least 1."""
        return max(1.0, self.inflation / _chance_quantile(self.degrees, _Z85)) if self.degrees else 1.0

    @property
    def is_certain(self) -> bool:
        """Blocks differ beyond chance: at 99.9 % in validation, at 99.999 % later, as every block of production is a look."""
        z = _Z999 if self.last_rate is None else _Z99999
        return bool(self.degrees) and self.inflation > _chance_quantile(self.degrees, z)


def spread_of(validated: ErrorRate) -> Spread:
    """What validation says of it."""
    degrees = max(0, validated.num_blocks - 1)
    return Spread(squares=validated.inflation * degrees, degrees=degrees)


def widened(spread: Spread, validated: ErrorRate, error_N: npt.NDArray[np.uint8]) -> Spread:
    """The spread with one more block of production, to be used from the next block on."""
    if not len(error_N):
        return spread
    rate = float(error_N.mean())
    if spread.last_rate is None:
        return msgspec.structs.replace(spread, last_rate=rate)
    middle = min(0.5, max(validated.rate, (rate + spread.last_rate) / 2))
    chance = middle * (1 - middle) * validated.chain_inflation / len(error_N)
    square = (rate - spread.last_rate) ** 2 / 2 / max(chance, 1e-12)
    return Spread(
        squares=spread.squares + _WEIGHT_OF_DIFFERENCE * square, degrees=spread.degrees + _WEIGHT_OF_DIFFERENCE, last_rate=rate
    )


def rises(validated: ErrorRate) -> Floats:
    """Alternatives [K] in standard deviations of one label: from what validation can just tell apart up to a break.

    Example:
        >>> rises(ErrorRate(rate=0.1, num_labels=5000.0)).round(3).tolist()
        [0.075, 0.124, 0.204, 0.337, 0.556, 0.917]
    """
    smallest = min(_LARGEST / _RATIO, _SMALLEST / math.sqrt(max(1.0, validated.num_labels / validated.chain_inflation)))
    number = max(1, math.ceil(math.log(_LARGEST / smallest) / math.log(_RATIO)))
    found: Floats = smallest * _RATIO ** np.arange(number, dtype=float)
    return found


def hypotheses(validated: ErrorRate, proven: float) -> tuple[Floats, Floats]:
    """The highest error rate that is allowed, and the one that is looked for, by alternative: two arrays [K].

    Example:
        >>> null_K, other_K = hypotheses(ErrorRate(rate=0.1, num_labels=5000.0), 1.0)
        >>> null_K.round(3).tolist(), other_K.round(3).tolist()
        ([0.104, 0.103, 0.102, 0.101, 0.101, 0.1], [0.127, 0.14, 0.163, 0.202, 0.267, 0.375])
    """
    rise_K = rises(validated)
    variance = validated.rate * (1 - validated.rate)
    inflation = validated.chain_inflation * proven
    needed_K = _EVIDENCE**2 * inflation / rise_K**2
    share_K = np.sqrt(validated.num_labels / needed_K)
    z_K = _EVIDENCE * (np.sqrt(1 + share_K**2) - share_K)
    null_K = np.minimum(validated.rate + z_K * math.sqrt(variance * inflation / validated.num_labels), _HIGHEST - 0.02)
    return null_K, np.minimum(null_K + rise_K * math.sqrt(variance), _HIGHEST)


def log_ratios(null_K: Floats, other_K: Floats, rho: float, last: int) -> Floats:
    """Log likelihood ratios [2, K] of a right answer and of an error, after a label that was right (0) or an error (1)."""
    null, other = null_K + rho * (last - null_K), other_K + rho * (last - other_K)
    return np.stack([np.log((1 - other) / (1 - null)), np.log(other / null)])


def log_factors(error_N: npt.NDArray[np.uint8], null_K: Floats, other_K: Floats, rho: float) -> Floats:
    """Logarithms [N, K] of the likelihood ratios of two chains; the first label of a block has no predecessor."""
    first = log_ratios(null_K, other_K, 0.0, 0)
    table = np.concatenate([first, *(log_ratios(null_K, other_K, rho, last) for last in (0, 1))])
    code_N = error_N.astype(np.int64)
    code_N[1:] += 2 + 2 * error_N[:-1].astype(np.int64)
    found: Floats = table[code_N]
    return found


def _chance_quantile(degrees: float, z: float) -> float:
    """Quantile of a variance ratio by chance alone: chi-square over its degrees.

    Source: Wilson, Hilferty 1931; within 1 % for degrees >= 5.

    Example:
        >>> round(_chance_quantile(9, _Z999), 2)  # 27.88 / 9 = 3.10
        3.12
    """
    return float((1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3)
