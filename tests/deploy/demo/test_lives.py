"""Which arm an oracle would have taken."""

import numpy as np
from sklearn.metrics import log_loss

from clipdrift_deploy.demo.lives import best_arm


def test_the_best_arm_has_the_lowest_log_loss_not_the_highest_accuracy() -> None:
    label_N = np.array([1.0, 1.0, 0.0, 0.0])
    proud_N = np.array([0.99, 0.99, 0.01, 0.999])  # three of four right, and sure of the fourth
    modest_N = np.array([0.6, 0.45, 0.4, 0.55])  # two of four
    scores = {name: np.stack([1 - one, one], axis=1) for name, one in (("proud", proud_N), ("modest", modest_N))}

    assert best_arm(scores, label_N) == "modest"
    assert log_loss(label_N, scores["modest"]) < log_loss(label_N, scores["proud"])
    assert best_arm({"proud": scores["proud"]}, label_N) == "proud"
