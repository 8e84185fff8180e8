"""Linear probes against scikit-learn's ridge regression, fold by fold."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from vexplain.translation import linear_probe


def test_the_share_is_that_of_ridge_regression_on_the_other_folds():
    rng = np.random.default_rng(0)
    codes = (rng.normal(size=(90, 4)) * [1, 10, 0.1, 0] + 3).astype(np.float32)
    targets = (codes @ rng.normal(size=(4, 2)) + rng.normal(size=(90, 2))).astype(np.float32)
    errors = 0.0
    for fold in range(3):
        held = np.arange(90) % 3 == fold
        mean, deviation = codes[~held].mean(0), codes[~held].std(0)
        x = (codes - mean) / np.where(deviation > 1e-6, deviation, 1)
        model = Ridge(alpha=1e-3 * (~held).sum()).fit(x[~held], targets[~held])
        errors += ((targets[held] - model.predict(x[held])) ** 2).sum()
    expected = 1 - errors / ((targets - targets.mean(0)) ** 2).sum()
    np.testing.assert_allclose(linear_probe(codes, targets, num_folds=3), expected, atol=2e-4)
    assert 0.2 < expected < 0.99


def test_what_is_not_told_is_not_predicted():
    rng = np.random.default_rng(1)
    codes, angle = rng.normal(size=(400, 8)), rng.uniform(0, 6.28, 400)
    targets = np.stack([np.sin(angle), np.cos(angle)], -1).astype(np.float32)
    assert abs(float(linear_probe(codes.astype(np.float32), targets))) < 0.1


def test_bad_input_is_named():
    codes = np.zeros((6, 2), np.float32)
    for num_folds in (1, 7):
        with pytest.raises(ValueError, match=f"num_folds is {num_folds}: expected 2 to 6"):
            linear_probe(codes, codes, num_folds=num_folds)
