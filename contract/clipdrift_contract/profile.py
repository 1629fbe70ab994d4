"""The reference profile: what the model's inputs and outputs looked like when it was trained, as bin counts.

It is made once by the trainer, travels inside the ONNX file's metadata and in `RunEnd`, and is all that serving and monitor
know of the model. Every count can be added, so windows, slices, replicas and hours merge by addition.
"""

from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

TaskKind = Literal["binary", "multiclass", "regression"]
FeatureKind = Literal["numeric", "categorical", "sequence"]
Summary = Literal["mean", "last", "norm", "missing", "length"]
OTHER = "(other)"


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One raw input of the model, by the user's own name.

    A numeric or categorical feature is one value a row; a sequence is a fixed block of numbers a row, summarised for drift
    by the mean of its finite values.
    """

    name: str
    kind: FeatureKind
    nullable: bool = False  # numeric and sequence: NaN is a missing value, not an error
    shape: tuple[int, ...] = ()  # of one row: () for a value, (8, 2) for a sequence of 8 steps of 2 numbers


class SliceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are parted into slices, by one raw feature: its categories, or its ranges between `edges`.

    Every row is in exactly one slice; a category that was not named is in the last one, "(other)".
    """

    feature: str
    categories: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.categories) == bool(self.edges):
            raise ValueError(f"slice by {self.feature!r} needs either categories or edges, and not both")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the slices, in the order of their indices.

        Example:
            >>> SliceSpec(feature="origin", categories=("EWR", "JFK")).names
            ('EWR', 'JFK', '(other)')
            >>> SliceSpec(feature="hour", edges=(6.0, 18.0)).names
            ('hour<6', '6<=hour<18', 'hour>=18', '(other)')
        """
        if self.categories:
            return (*self.categories, OTHER)
        first, last = self.edges[0], self.edges[-1]
        between = [f"{low:g}<={self.feature}<{high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return (f"{self.feature}<{first:g}", *between, f"{self.feature}>={last:g}", OTHER)

    def index(self, values_N: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        """Slice index of each row; NaN and unknown categories give the last one."""
        if self.categories:
            lookup = {name: i for i, name in enumerate(self.categories)}
            return np.fromiter((lookup.get(str(v), len(lookup)) for v in values_N), np.int16, len(values_N))
        numbers_N = np.asarray(values_N, dtype=float)
        found_N = np.searchsorted(np.asarray(self.edges), numbers_N, side="right").astype(np.int16)
        found_N[np.isnan(numbers_N)] = len(self.edges) + 1
        return found_N


class BlockSpread(msgspec.Struct, frozen=True, kw_only=True):
    """How much the shares of bins differ between blocks of time (days), beyond what independent rows give.

    With T the covariance between blocks of the shares, each divided by the root of its mean: `total` is its trace and `square`
    the trace of its square; `total**2 / square` says in how many directions the days differ. A window of n rows of one day has
    1 + n total / (K - 1) times the variance of n independent rows.
    """

    num_blocks: int = 0  # 0: not known
    total: float = 0.0
    square: float = 0.0


class FeatureProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Bin counts of one feature. Numeric: K edges make K+1 bins (open at both ends). Categorical: one bin a category and a last
    one for all others. Missing values are counted apart and are in no bin."""

    spec: FeatureSpec
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    num_missing: int = 0
    spread: BlockSpread = BlockSpread()  # between days, of the bins with the missing values as one more
    summary: Summary = "mean"  # what one number stands for a sequence, a vector or a text (its length)
    column: str = ""  # the input that this is a summary of; empty: that of its own name

    @property
    def num_bins(self) -> int:
        return len(self.edges) + 1 if self.spec.kind != "categorical" else len(self.categories) + 1


class ReferenceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What validation in time order looked like. `score_edges` cut the probability of class 1 (binary), of the predicted class
    (multi-class) or the predicted value (regression)."""

    task: TaskKind
    classes: tuple[str, ...] = ()  # names of the classes, in the order of the output; empty for regression
    features: tuple[FeatureProfile, ...] = ()
    derived: tuple[FeatureProfile, ...] = ()  # further numbers that are watched and no input of their own, see `column`
    slices: SliceSpec | None = None
    slice_counts: tuple[int, ...] = ()
    score_edges: tuple[float, ...] = ()
    score_counts: tuple[int, ...] = ()
    label_counts: tuple[int, ...] = ()  # by class; empty for regression
    num_rows: int = 0
    label_low: float = 0.0  # regression: 1 % quantile of the label
    label_high: float = 1.0  # regression: 99 % quantile; (label_low, label_high) scales the loss into [0, 1]
    score_spread: BlockSpread = BlockSpread()
    slice_spread: BlockSpread = BlockSpread()
    schema: int = 1

    @property
    def slice_names(self) -> tuple[str, ...]:
        """Names of the slices; one slice "all" where the task declares none."""
        return self.slices.names if self.slices is not None else ("all",)


def bin_index(profile: FeatureProfile, values_N: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Bin of each row's value, shape [N], in 0..num_bins-1; -1 where the value is missing.

    A sequence of shape [N, ...] is first summarised, by the mean of its finite values or as the profile says.

    Example:
        >>> hour = FeatureProfile(spec=FeatureSpec(name="hour", kind="numeric"), edges=(6.0, 18.0))
        >>> bin_index(hour, np.array([5.0, 6.0, 20.0, np.nan])).tolist()
        [0, 1, 2, -1]
    """
    if profile.spec.kind == "categorical":
        lookup = {name: i for i, name in enumerate(profile.categories)}
        return np.fromiter(
            (lookup.get(str(word), len(lookup)) for word in np.asarray(values_N).tolist()), np.int64, len(values_N)
        )
    if profile.summary == "length":
        number_N = np.fromiter((len(str(word)) for word in np.asarray(values_N).tolist()), np.float64, len(values_N))
    else:
        number_N = summarise(np.asarray(values_N, dtype=np.float64), profile.summary)
    found_N = np.searchsorted(np.asarray(profile.edges), number_N, side="right").astype(np.int64)
    found_N[~np.isfinite(number_N)] = -1
    return found_N


def summarise(values: npt.NDArray[np.float64], summary: Summary = "mean") -> npt.NDArray[np.float64]:
    """One number a row, shape [N]: the value itself, or of a sequence or vector of shape [N, ...] the mean of its finite values
    (NaN when it has none), the same of its last step, the Euclidean norm of its finite values, or the share of the others.

    Example:
        >>> rows = np.array([[3.0, 4.0], [np.nan, 1.0]])
        >>> {how: summarise(rows, how).tolist() for how in ("mean", "last", "norm", "missing")}
        {'mean': [3.5, 1.0], 'last': [4.0, 1.0], 'norm': [5.0, 1.0], 'missing': [0.0, 0.5]}
    """
    if values.ndim <= 1:
        return values
    if summary == "last":
        return summarise(values[:, -1:].reshape(len(values), -1))
    flat_ND = values.reshape(len(values), -1)
    if summary == "missing":
        share_N: npt.NDArray[np.float64] = (~np.isfinite(flat_ND)).mean(axis=1)
        return share_N
    if summary == "norm":
        norm_N: npt.NDArray[np.float64] = np.sqrt(summarise(flat_ND * flat_ND) * np.isfinite(flat_ND).sum(axis=1))
        return norm_N
    finite_ND = np.isfinite(flat_ND)
    count_N = finite_ND.sum(axis=1)
    total_N = np.where(finite_ND, flat_ND, 0.0).sum(axis=1)
    return np.where(count_N > 0, total_N / np.maximum(count_N, 1), np.nan)


def block_spread(counts_WK: npt.NDArray[Any], min_rows: int = 10) -> BlockSpread:
    """The spread between blocks of the counts of W blocks in K bins; blocks of fewer rows are left out, and under three blocks
    nothing is known.

    Source: moments of the shares' sample covariance S, whitened by the mean shares: E tr S = tr T + (K - 1) mean(1 / n), and
    the unbiased tr S^2 of normal vectors (Bai, Saranadasa 1996, section 3). Both are cut off where no covariance can lie.

    Example:
        >>> days = np.array([[60, 40], [40, 60], [60, 40], [40, 60]])
        >>> block_spread(days).total > 0, block_spread(days[:2])
        (True, BlockSpread(num_blocks=0, total=0.0, square=0.0))
    """
    counts_WK = np.asarray(counts_WK, np.float64)
    counts_WK = counts_WK[counts_WK.sum(axis=1) >= max(1, min_rows)]
    num_blocks = len(counts_WK)
    if num_blocks < 3:
        return BlockSpread()
    counts_WK = counts_WK[:, counts_WK.sum(axis=0) > 0]
    rows_W = counts_WK.sum(axis=1)
    mean_K = counts_WK.sum(axis=0) / rows_W.sum()
    off_WK = (counts_WK / rows_W[:, None] - mean_K) / np.sqrt(mean_K)
    off_WK -= off_WK.mean(axis=0)
    gram_WW = off_WK @ off_WK.T / (num_blocks - 1)  # has the eigenvalues of the covariance
    trace, square, degrees = float(np.trace(gram_WW)), float((gram_WW**2).sum()), num_blocks - 1
    by_chance, free = float((1 / rows_W).mean()), counts_WK.shape[1] - 1
    total = trace - free * by_chance
    if total <= 0 or free < 1:
        return BlockSpread(num_blocks=num_blocks)
    if degrees > 1:
        square = degrees**2 / ((degrees + 2) * (degrees - 1)) * (square - trace**2 / degrees)
    square -= 2 * by_chance * total + by_chance**2 * free
    return BlockSpread(num_blocks=num_blocks, total=total, square=min(total**2, max(total**2 / free, square)))
