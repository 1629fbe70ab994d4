"""The figures of a life by month, and how much of what could be recovered was recovered. Pure calculation."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_trainer.evaluation.scores import area_under_roc, expected_calibration_error, row_losses

Floats = npt.NDArray[np.float64]
METRICS = ("accuracy", "auc", "nll", "ece")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model over some rows: share of right classes, area under ROC, mean log loss in nats, calibration error."""

    accuracy: float
    auc: float | None  # None where only one class occurs
    nll: float
    ece: float


def figures_of(scores_NK: Floats, label_N: Floats) -> Figures:
    """Figures of class probabilities against class indices; raises ValueError for no rows.

    Example:
        >>> figures_of(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0.0, 1.0])).auc
        1.0
    """
    if not len(label_N):
        raise ValueError("there are no rows to take figures of")
    is_right_N, nll_N, _ = row_losses(scores_NK, label_N)
    return Figures(
        accuracy=float(is_right_N.mean()),
        auc=area_under_roc(scores_NK[:, 1], label_N),
        nll=float(nll_N.mean()),
        ece=expected_calibration_error(scores_NK, label_N),
    )


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """A calendar month of the replay, and where its rows lie among all rows in time order."""

    name: str  # such as 2013-03
    start_ms: int
    end_ms: int
    first: int
    last: int  # one past the last row

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last)

    @property
    def num_rows(self) -> int:
        return self.last - self.first


def months_of(time_ms: npt.NDArray[np.int64]) -> tuple[Month, ...]:
    """The months that rows in time order fall into.

    Example:
        >>> day = 86_400_000
        >>> [(month.name, month.num_rows) for month in months_of(np.array([0, 30 * day, 31 * day]))]
        [('1970-01', 2), ('1970-02', 1)]
    """
    if not len(time_ms):
        return ()
    found = []
    for month in np.unique(time_ms.astype("datetime64[ms]").astype("datetime64[M]")):
        start_ms, end_ms = (int(edge.astype("datetime64[ms]").astype(np.int64)) for edge in (month, month + 1))
        first, last = np.searchsorted(time_ms, (start_ms, end_ms)).tolist()
        found.append(Month(name=str(month), start_ms=start_ms, end_ms=end_ms, first=first, last=last))
    return tuple(found)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Part of the distance from the stale life to the oracle's that the live one made up: 0 none, 1 all; None where the oracle
    is no better than the stale model, so that there was nothing to recover."""

    auc: float | None
    nll: float | None


def recovered_share(months: Sequence["LifeMonth"]) -> Share:
    """(live - stale) / (oracle - stale): NLL over all rows, AUC as the mean over months."""
    num_rows = np.array([month.n for month in months], dtype=np.float64)
    nll = [float((np.array([life.nll for life in lives]) * num_rows).sum()) for lives in _by_life(months)]
    auc = [[life.auc for life in lives if life.auc is not None] for lives in _by_life(months)]
    means = [float(np.mean(one)) if one else 0.0 for one in auc]
    return Share(auc=_share(*means), nll=_share(*(-total for total in nll)))


class LifeMonth(msgspec.Struct, frozen=True, kw_only=True):
    """One month of one model's three lives on the same rows."""

    month: str
    n: int
    stale: Figures
    live: Figures
    oracle: Figures


def _by_life(months: Sequence[LifeMonth]) -> tuple[list[Figures], list[Figures], list[Figures]]:
    return [month.stale for month in months], [month.live for month in months], [month.oracle for month in months]


def _share(stale: float, live: float, oracle: float) -> float | None:
    """All three such that more is better."""
    return (live - stale) / (oracle - stale) if oracle > stale else None
