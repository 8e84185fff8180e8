"""Differences of methods: the means by hand, the intervals by the bootstrap of one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.evaluation import Score, bootstrap_intervals, compare


def made_scores(seed, num_images, shifts):
    """Methods that differ by a constant on average, on images whose hardness differs more."""
    rng = np.random.default_rng(seed)
    hardness = rng.uniform(0.2, 0.8, num_images)
    curve = np.zeros(101)
    return {
        name: Score(
            {"IoU area": hardness + rng.normal(shift, 0.02, num_images), "mask AUC": hardness + shift},
            curve,
            "",
        )
        for name, shift in shifts.items()
    }


def test_a_small_difference_on_the_same_images_is_significant():
    scores = made_scores(0, 60, {"ours": 0.0, "better": 0.03, "worse": -0.03, "as good": 0.0})
    found = compare({"scores": scores}, "ours", num_resamples=300)
    assert list(found) == ["better", "worse", "as good"]
    verdicts = {name: (d["IoU area"].is_above, d["IoU area"].is_below) for name, d in found.items()}
    assert verdicts == {"better": (True, False), "worse": (False, True), "as good": (False, False)}
    for name, differences in found.items():
        values, others = (scores[n].values["IoU area"] for n in (name, "ours"))
        assert differences["IoU area"].mean == pytest.approx((values - others).mean())
        difference = jnp.asarray(values - others, jnp.float32)[:, None]
        (expected,) = bootstrap_intervals(jax.random.key(0), [difference], num_resamples=300)
        np.testing.assert_allclose(differences["IoU area"][1:], expected, atol=1e-5)
    np.testing.assert_allclose(found["better"]["mask AUC"], 0.03, atol=1e-6)  # the same on every image


def test_tasks_count_alike_and_only_what_all_hold_is_compared():
    small = made_scores(1, 10, {"ours": 0.0, "rival": 0.1, "only here": 0.0})
    large = made_scores(2, 90, {"ours": 0.0, "rival": -0.02})
    found = compare({"small": small, "large": large}, "ours", num_resamples=200)
    assert list(found) == ["rival"]
    assert found["rival"]["mask AUC"].mean == pytest.approx(0.04)
    assert found["rival"]["IoU area"].is_above


def test_mistakes_are_named():
    scores = made_scores(0, 4, {"ours": 0.0, "rival": 0.1})
    with pytest.raises(KeyError, match=r"no method 'mine' in 'scores': expected one of \['ours', 'rival'\]"):
        compare({"scores": scores}, "mine")
    with pytest.raises(ValueError, match="'scores' has scores of 4 to 5 images"):
        compare({"scores": scores | made_scores(0, 5, {"other": 0.0})}, "ours")
    with pytest.raises(ValueError, match="tasks is empty"):
        compare({}, "ours")
