"""Made-up validations whose rows hang together within a day: whoever takes rows for independent is wrong about them."""

import numpy as np

DAY = 86_400_000


def binary(generator, num_rows, num_days, sharpness=1.0, day_spread=0.7, base=0.0):
    """Scores [N, 2], labels and times; each day has a shift of its own that the model does not know."""
    day_N, shift_N = _days(generator, num_rows, num_days, day_spread)
    logit_N = generator.normal(size=num_rows) * 1.5 + base
    label_N = (generator.random(num_rows) < 1 / (1 + np.exp(-(logit_N + shift_N)))).astype(float)
    score_N = 1 / (1 + np.exp(-logit_N * sharpness))
    return np.stack([1 - score_N, score_N], axis=1), label_N, day_N * DAY


def multiclass(generator, num_rows, num_days, sharpness=1.4, num_classes=4):
    day_N, _ = _days(generator, num_rows, num_days, 0.0)
    logits_NK = generator.normal(size=(num_rows, num_classes)) * 1.5 + np.linspace(-1, 0.5, num_classes)
    true_NK = _softmax(logits_NK + (generator.normal(size=(num_days, num_classes)) * 0.5)[day_N])
    label_N = (true_NK.cumsum(axis=1) < generator.random((num_rows, 1))).sum(axis=1).clip(0, num_classes - 1)
    return _softmax(logits_NK * sharpness), label_N.astype(float), day_N * DAY


def regression(generator, num_rows, num_days):
    day_N, shift_N = _days(generator, num_rows, num_days, 0.4)
    size_N = np.exp(generator.normal(size=num_days) * 0.2)[day_N]
    return np.zeros((num_rows, 1)), generator.standard_t(6, num_rows) * size_N + shift_N, day_N * DAY


def _days(generator, num_rows, num_days, spread):
    day_N = np.sort(generator.integers(0, num_days, num_rows))
    return day_N, (generator.normal(size=num_days) * spread)[day_N]


def _softmax(logits_NK):
    exponent_NK = np.exp(logits_NK)
    return exponent_NK / exponent_NK.sum(axis=1, keepdims=True)
