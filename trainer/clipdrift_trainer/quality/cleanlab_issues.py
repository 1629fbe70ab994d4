"""The same question to cleanlab, where the extra `labels` is installed."""

import numpy as np
from cleanlab.filter import find_label_issues

from clipdrift_trainer.quality.table import Floats, Ints


def cleanlab_issues(scores_NK: Floats, label_N: Ints) -> Ints:
    """Positions of the rows whose label cleanlab takes to be wrong, the least credible first (its defaults).

    Raises:
        ValueError: A class has no row (cleanlab's own words).
    """
    found = find_label_issues(label_N, scores_NK, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64)
