"""What a model does with rows that are made up from its profile: whether rows may be joined, and how long a run takes.

The same code measures in the trial's process and, where there is no trial, in the server's own.
"""

from collections.abc import Callable, Mapping
from math import prod
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from clipdrift_contract.profile import FeatureProfile, ReferenceProfile
from clipdrift_serving.dataplane.tensors import BYTES, DTYPES, InputSpec, Tensor

Run: TypeAlias = Callable[[dict[str, Tensor]], dict[str, Tensor]]
_ROWS = 32  # run together: large enough to show what a batch costs, small enough for the trial to be short
_MOST_ELEMENTS = 1 << 22  # of one input made up; beyond, fewer rows are run together
_REPEATS = 9
_RTOL, _ATOL = 1e-4, 1e-5  # matrix kernels differ by the batch in their last bits; a model that mixes rows differs by far more
_INNER = 4  # size of an axis that the file leaves open


class Measured(NamedTuple):
    """What a trial found out."""

    is_batchable: bool = True  # rows of several requests may run together
    seconds_per_run: float = 0.0  # one row (or the fixed batch), the median
    seconds_per_batch: float = 0.0  # `batch_rows` rows; 0 where they cannot run together
    batch_rows: int = 0
    fixed_rows: int = 0  # the only batch size that the model takes; 0: any
    peak_mib: float = 0.0  # resident memory that loading and running took; 0: not measured


def measure(
    run: Run, specs: Mapping[str, InputSpec], *, fixed_rows: int, profile: ReferenceProfile | None, budget_seconds: float
) -> Measured:
    """Run made-up rows one by one and together.

    Args:
        run: Answers inputs; may raise anything.
        specs: The model's inputs.
        fixed_rows: Its only batch size; 0 where the batch axis is open.
        profile: Says what rows look like.
        budget_seconds: Repeated runs stop after about this time; the first of each kind is always run.

    Returns:
        Batchable means: the answer to different rows together is the answers to each alone, row for row in each output
        (rtol 1e-4, atol 1e-5). A model that runs only on zeros is not shown to be.

    Raises:
        ValueError: No kind of row that can be made up runs; says what the runtime said.
    """
    rows, are_different = rows_that_run(run, specs, fixed_rows, profile)
    num_rows = len(next(iter(rows.values())))
    deadline = perf_counter() + budget_seconds
    single = _part(rows, 0, fixed_rows or 1)
    seconds_per_run = _median_seconds(run, single, deadline)
    if fixed_rows:
        return Measured(False, seconds_per_run, seconds_per_run, fixed_rows, fixed_rows)
    try:
        together = run(rows)
        is_batchable = are_different and _is_row_by_row(run, rows, together, deadline)
        return Measured(is_batchable, seconds_per_run, _median_seconds(run, rows, deadline), num_rows)
    except Exception:  # noqa: BLE001  the runtime raises many types; each means that these rows cannot run together
        return Measured(False, seconds_per_run)


def make_rows(
    specs: Mapping[str, InputSpec],
    num_rows: int,
    profile: ReferenceProfile | None,
    *,
    is_plain: bool = False,
    inner: int = _INNER,
) -> dict[str, Tensor]:
    """Rows of the shapes and types that `specs` name; the same at each call.

    With a profile they follow its bins and categories, with missing values where they are allowed; without one, numbers are
    normal, whole numbers 0 or 1, strings empty. `is_plain`: only zeros.

    Example:
        >>> specs = {"x": InputSpec("x", "FP32", ["batch", 2], is_nullable=False)}
        >>> make_rows(specs, 3, None)["x"].shape
        (3, 2)
    """
    rng = np.random.default_rng(0)
    known = {feature.spec.name: feature for feature in profile.features} if profile is not None else {}
    made = {}
    for name, spec in specs.items():
        shape = (num_rows, *(inner if size == -1 else size for size in spec.row_shape))
        made[name] = _plain(spec, shape) if is_plain else _column(rng, spec, shape, known.get(name))
    return made


def rows_that_run(
    run: Run, specs: Mapping[str, InputSpec], fixed_rows: int, profile: ReferenceProfile | None
) -> tuple[dict[str, Tensor], bool]:
    """Rows that the model answers, the first of them run; and whether they differ from each other.

    Raises:
        ValueError: As `measure`.
    """
    largest = max(prod(_INNER if size == -1 else size for size in spec.row_shape) for spec in specs.values())
    num_rows = fixed_rows or max(2, min(_ROWS, _MOST_ELEMENTS // max(largest, 1)))
    reason = ""
    for is_plain, inner in ((False, _INNER), (False, 1), (True, _INNER), (True, 1)):
        rows = make_rows(specs, num_rows, profile, is_plain=is_plain, inner=inner)
        try:
            run(_part(rows, 0, fixed_rows or 1))
        except Exception as error:  # noqa: BLE001  as above; the next kind of row may run
            reason = reason or f"{type(error).__name__}: {str(error)[:300]}"
            continue
        return rows, not is_plain
    raise ValueError(f"the model runs on no row that can be made up for it, not even on zeros: {reason}")


def _is_row_by_row(run: Run, rows: dict[str, Tensor], together: dict[str, Tensor], deadline: float) -> bool:
    num_rows = len(next(iter(rows.values())))
    if any(value.ndim == 0 or len(value) != num_rows for value in together.values()):
        return False
    for row in range(num_rows):
        if row >= 8 and perf_counter() > deadline:
            break
        alone = run(_part(rows, row, row + 1))
        if not all(_is_same(together[name][row : row + 1], value) for name, value in alone.items()):
            return False
    return True


def _is_same(expected: Tensor, got: Tensor) -> bool:
    if expected.shape != got.shape:
        return False
    if expected.dtype.kind != "f":
        return bool((expected == got).all())
    step = 4 * float(np.finfo(expected.dtype).eps)
    wide = expected.astype(np.float64), got.astype(np.float64)
    return bool(np.allclose(*wide, rtol=max(_RTOL, step), atol=max(_ATOL, step), equal_nan=True))


def _median_seconds(run: Run, rows: dict[str, Tensor], deadline: float) -> float:
    taken: list[float] = []
    while not taken or (len(taken) < _REPEATS and perf_counter() < deadline):
        started = perf_counter()
        run(rows)
        taken.append(perf_counter() - started)
    return median(taken)


def _part(rows: dict[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
    return {name: value[start:end] for name, value in rows.items()}


def _plain(spec: InputSpec, shape: tuple[int, ...]) -> Tensor:
    return np.full(shape, "", object) if spec.datatype == BYTES else np.zeros(shape, DTYPES[spec.datatype])


def _column(rng: np.random.Generator, spec: InputSpec, shape: tuple[int, ...], feature: FeatureProfile | None) -> Tensor:
    if spec.datatype == BYTES:
        return _words(rng, shape, feature)
    dtype = np.dtype(DTYPES[spec.datatype])
    if feature is None or not feature.edges:
        drawn = rng.integers(0, 2, shape) if dtype.kind != "f" else rng.standard_normal(shape)
    else:
        drawn = _from_bins(rng, feature, shape)
    column: Tensor = (drawn if dtype.kind == "f" else np.maximum(np.rint(drawn), 0)).astype(dtype)
    if spec.is_nullable and dtype.kind == "f":
        column[1::4] = np.nan
    return column


def _from_bins(rng: np.random.Generator, feature: FeatureProfile, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """A bin a row by its count, and values spread over it; an open bin is taken to be as wide as one between the edges."""
    edges = np.asarray(feature.edges)
    width = (edges[-1] - edges[0]) / max(len(edges) - 1, 1) or 1.0
    bounds = np.concatenate([[edges[0] - width], edges, [edges[-1] + width]])
    weights = np.asarray(feature.counts, float) if len(feature.counts) == len(edges) + 1 else np.ones(len(edges) + 1)
    shares = weights / weights.sum() if weights.sum() > 0 else None
    low_N = rng.choice(len(edges) + 1, shape[0], p=shares).reshape(-1, *[1] * (len(shape) - 1))
    spread = rng.random(shape)
    values: npt.NDArray[np.float64] = bounds[low_N] + spread * (bounds[low_N + 1] - bounds[low_N])
    return values


def _words(rng: np.random.Generator, shape: tuple[int, ...], feature: FeatureProfile | None) -> Tensor:
    words: list[Any] = [*(feature.categories if feature is not None else ()), ""]  # "": a category that it never saw
    column: Tensor = np.array(words, object)[rng.integers(0, len(words), shape)]
    return column
