"""Joint drift on rows: whether features hang together as before, which no detector on one feature at a time can see.

Axes: N reference rows, M current rows, P rows of both, D columns of numbers.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.detectors.detector import Floats

MAX_ROWS = 1_000  # a side: the kernel of both is 32 MB
_NUM_PERMUTATIONS = 499
_MAX_CATEGORIES = 12  # a feature; the rest is one more
_BATCH = 100  # permutations at once
_MEDIAN_ROWS = 400
_SEED = 20_260_101
Columns = dict[str, npt.NDArray[np.generic]]


class JointDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of rows says."""

    detector: str
    effect: float
    p_value: float
    num_reference: int
    num_current: int
    columns: tuple[str, ...]
    words: str


def mmd(reference: Columns, current: Columns, num_permutations: int = _NUM_PERMUTATIONS) -> JointDrift:
    """Maximum mean discrepancy of two samples of rows, with a permutation p-value.

    The kernel is Gaussian with the median distance as width, on standardised numbers and on one column for each of the
    commonest categories; a missing value counts as the median, and has a column of its own where there are any. The effect is
    the root of the squared discrepancy without bias, cut off at 0: 0 for equal distributions, at most 1.4. The p-value
    is exact for rows that may be exchanged; rows of one day hang together, so a small one is a hint and no proof. Above 1,000
    rows a side an evenly spaced part is taken. Memory: some 100 MB.

    Args:
        reference: Columns by name, each of N numbers or words.
        current: The same names, each of M.
        num_permutations: The smallest p-value is one over these and one.

    Raises:
        ValueError: Under 20 rows on a side, or no column that both have.

    Source: Gretton et al. 2012, equation 3 (unbiased) and section 6 (permutation, median width).
    """
    names = tuple(name for name in reference if name in current)
    sizes = [len(next(iter(side.values()))) if side else 0 for side in (reference, current)]
    if not names or min(sizes) < 20:
        raise ValueError(
            f"needs 20 rows a side and a column that both have, got {sizes[0]} and {sizes[1]} rows, {len(names)} columns"
        )
    num_before, num_now = (min(size, MAX_ROWS) for size in sizes)
    kept = [np.linspace(0, size - 1, few).astype(int) for size, few in zip(sizes, (num_before, num_now), strict=True)]
    joined = [np.concatenate([reference[name][kept[0]], current[name][kept[1]]]) for name in names]
    parts = [part for values in joined for part in _numbers(values)]
    numbers_PD = np.column_stack(parts) if parts else np.zeros((num_before + num_now, 1))
    kernel_PP = _kernel(numbers_PD)
    weight_P = np.concatenate([np.full(num_before, -1.0), np.ones(num_now)])
    seen = float(_discrepancy(kernel_PP, weight_P[None])[0])
    random, beyond = np.random.default_rng(_SEED), 0
    for start in range(0, num_permutations, _BATCH):
        shuffled = random.permuted(np.tile(weight_P, (min(_BATCH, num_permutations - start), 1)), axis=1)
        beyond += int((_discrepancy(kernel_PP, shuffled) >= seen - 1e-12).sum())
    effect, p_value = float(np.sqrt(max(0.0, seen))), (beyond + 1) / (num_permutations + 1)
    return JointDrift(
        detector="mmd", effect=effect, p_value=p_value, num_reference=num_before, num_current=num_now, columns=names,
        words=(
            f"Together, {len(names)} inputs lie {effect:.3f} apart (maximum mean discrepancy; shuffled rows give as much with "
            f"probability {p_value:.2g}, {num_before:,} rows against {num_now:,}). Rows of one day hang together, so it is a "
            "hint and no proof."
        ),
    )  # fmt: skip


def row_detector_names(names: tuple[str, ...]) -> None:
    """Check the names of detectors on rows.

    Raises:
        ConfigError: One is neither "mmd" nor "evidently:METHOD".
    """
    for name in names:
        if name != "mmd" and not (name.startswith("evidently:") and name.removeprefix("evidently:").isidentifier()):
            raise ConfigError(
                f"policy.drift.rows: there is no detector {name!r} on rows; there are mmd and Evidently's by name, as "
                "evidently:wasserstein"
            )


def _numbers(values_P: npt.NDArray[np.generic]) -> list[Floats]:
    """Columns of numbers for one feature, shape [P] each: none where it does not vary."""
    if values_P.dtype.kind in "OUS":
        words, index_P, counts = np.unique(np.array([str(one) for one in values_P]), return_inverse=True, return_counts=True)
        common = np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES]
        parts = [(index_P == code).astype(float) for code in common.tolist()]
        return [_standard(part) for part in parts] if len(words) > 1 else []
    numbers_P = values_P.astype(float)
    is_there_P = np.isfinite(numbers_P)
    if not is_there_P.any():
        return []
    parts = [np.where(is_there_P, numbers_P, np.median(numbers_P[is_there_P]))]
    parts += [] if is_there_P.all() else [(~is_there_P).astype(float)]
    return [_standard(part) for part in parts if part.std() > 0]


def _standard(values_P: Floats) -> Floats:
    """By median and quartiles where they differ, so that one wild value does not flatten the rest; cut off at 10."""
    low, middle, high = np.quantile(values_P, (0.25, 0.5, 0.75))
    scale = (high - low) / 1.349 or values_P.std()
    standard_P: Floats = np.clip((values_P - middle) / scale, -10.0, 10.0)
    return standard_P


def _kernel(numbers_PD: Floats) -> Floats:
    squares_P = (numbers_PD**2).sum(axis=1)
    distance_PP = np.maximum(squares_P[:, None] + squares_P[None] - 2 * numbers_PD @ numbers_PD.T, 0.0)
    some = np.linspace(0, len(numbers_PD) - 1, min(_MEDIAN_ROWS, len(numbers_PD))).astype(int)
    part = distance_PP[np.ix_(some, some)]
    width = float(np.median(part[part > 0])) if (part > 0).any() else 1.0
    kernel_PP: Floats = np.exp(-distance_PP / width)
    np.fill_diagonal(kernel_PP, 0.0)
    return kernel_PP


def _discrepancy(kernel_PP: Floats, weight_RP: Floats) -> Floats:
    """Squared discrepancy without bias, for each row of signs: -1 for a reference row, 1 for a current one."""
    is_now_RP = (weight_RP > 0).astype(float)
    num_now = is_now_RP[0].sum()
    num_before = len(kernel_PP) - num_now
    toward_RP = is_now_RP @ kernel_PP
    within_now = (toward_RP * is_now_RP).sum(axis=1)
    across = toward_RP.sum(axis=1) - within_now
    within_before = kernel_PP.sum() - within_now - 2 * across
    found: Floats = (
        within_now / (num_now * (num_now - 1))
        + within_before / (num_before * (num_before - 1))
        - 2 * across / (num_now * num_before)
    )
    return found
