"""Which held-out rows may judge a candidate: those that are new to the model in service too, and whose labels are in."""

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_trainer.tasks.task import Rows

_MATURE_SHARE = 0.99


def may_judge(rows: Rows, champion_end_ms: int, as_of_ms: int, label_horizon_ms: int) -> npt.NDArray[np.bool_]:
    """Whether each row may judge, shape [N].

    Two kinds may not. Rows of a day that the model in service has seen a part of: errors of one day hang together, so the rest
    of that day is no news to it. And rows so new that some labels of their time are still out: labels that come soon are not
    like those that come late (a failure is known at once, that there was none only at the end), and rows picked by that would
    judge another question.

    Args:
        rows: Held-out rows, labelled as of `as_of_ms`.
        champion_end_ms: The data of the model in service end before this moment.
        as_of_ms: The labels are those known then.
        label_horizon_ms: What labels take to come: see `label_horizon`.

    Example:
        >>> day = 86_400_000
        >>> time_ms = np.array([2 * day, 2 * day + day // 2, 3 * day, 5 * day])
        >>> rows = Rows({}, np.zeros(4), time_ms, time_ms)
        >>> may_judge(rows, champion_end_ms=2 * day + 1, as_of_ms=6 * day, label_horizon_ms=day).tolist()
        [False, False, True, True]
        >>> may_judge(rows, champion_end_ms=2 * day, as_of_ms=6 * day, label_horizon_ms=2 * day).tolist()
        [True, True, True, False]
    """
    first_whole_day_ms = -(-champion_end_ms // MS_PER_DAY) * MS_PER_DAY
    return (rows.time_ms >= first_whole_day_ms) & (rows.time_ms <= as_of_ms - label_horizon_ms)


def label_horizon(rows: Rows) -> int:
    """Milliseconds within which 99 % of the labels come, by the older half of the rows: of the newest, only the quick ones are
    there. 0 for no rows.

    Example:
        >>> time_ms = np.arange(400)
        >>> label_horizon(Rows({}, np.zeros(400), time_ms, time_ms + np.where(time_ms < 200, 30, 5)))
        30
    """
    if not len(rows):
        return 0
    is_older_N = rows.time_ms <= np.sort(rows.time_ms)[(len(rows) - 1) // 2]
    delay_ms = (rows.label_time_ms - rows.time_ms)[is_older_N]
    return int(np.quantile(delay_ms, _MATURE_SHARE, method="higher"))
