"""Stride artifacts in the smallest preset, and the parts of the experiment against what others compute."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.ndimage import uniform_filter

from experiments import stride_artifacts
from experiments.stride_artifacts_maps import (
    BLURRED,
    RULE,
    SIGNED,
    STRIDE_1,
    STRIDED,
    TREATMENTS,
    box_blur,
    grid_period,
    layer_attributions,
    pooled_convolution,
)
from experiments.stride_artifacts_report import grid, verdict
from vexplain.transforms import GUIDED, layers

SMOKE = stride_artifacts.PRESETS["smoke"][1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("stride_artifacts")
    return out, stride_artifacts.main(dataclasses.replace(SMOKE, out=out))


def test_the_folder_holds_metrics_figures_and_report(run):
    out, metrics = run
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert (out / "report.html").stat().st_size > 50_000
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {"overview.png", "alexnet.png", "StridedFlowerNet.png"}


def test_every_layer_has_every_treatment(run):
    rows = run[1]["rows"]
    found = {(row["network"], row["layer"], row["treatment"]) for row in rows}
    assert len(found) == len(rows)
    of_alexnet = {("alexnet", f"relu_{n}", t) for n in range(1, 6) for t in TREATMENTS}
    trained = {(stride_artifacts.TRAINED, f"relu_{n}", t) for n in range(1, 4) for t in TREATMENTS}
    recipe = {(stride_artifacts.TRAINED, stride_artifacts.RECIPE, t) for t in TREATMENTS if t != SIGNED}
    assert found == of_alexnet | trained | recipe


def test_measures_are_in_range_and_the_grid_is_seen(run):
    for row in run[1]["rows"]:
        assert row["period"] == 4
        for key in ("detail", "area", "best"):
            mean, error = row["measures"].get(key, (0, 0))
            assert 0 <= mean <= 1
            assert error >= 0
        assert all(gain == 0 for gain, _ in row["gain_over_blur"].values()) == (row["treatment"] == BLURRED)
    first = {r["treatment"]: r["measures"]["log_energy"][0] for r in run[1]["rows"] if r["layer"] == "relu_1"}
    assert first[STRIDED] > np.log(3) > first[RULE]
    assert first[STRIDE_1] < first[STRIDED]


def test_pooling_after_stride_1_window_by_window(key):
    """Maps of 11 × 9 at stride (3, 2): the last window of each row and column sticks out."""
    x, kernel = jax.random.normal(key, (2, 11, 10, 3)), jax.random.normal(key, (4, 3, 3, 5))
    pads, numbers = ((1, 2), (0, 1)), ("NHWC", "HWIO", "NHWC")
    strided = lax.conv_general_dilated(x, kernel, (3, 2), pads, dimension_numbers=numbers)
    dense = np.asarray(lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=numbers))
    pooled = pooled_convolution(x, kernel, (3, 2), pads, dimension_numbers=numbers)
    assert dense.shape[1:3] == (11, 9)
    assert pooled.shape == strided.shape == (2, 4, 5, 5)
    for row, column in np.ndindex(4, 5):
        window = dense[:, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(pooled[:, row, column], window.max((1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(strided[:, row, column], window[:, 0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [3, 4])
def test_box_blur_against_scipy(size):
    maps = np.random.default_rng(0).uniform(size=(2, 9, 13)).astype(np.float32)
    expected = np.stack([uniform_filter(one, size, mode="reflect") for one in maps])
    np.testing.assert_allclose(box_blur(jnp.asarray(maps), size), expected, rtol=1e-5)


def two_strides(kernels, images):
    numbers = ("NHWC", "HWIO", "NHWC")
    for kernel in kernels:
        images = jax.nn.relu(images)
        images = lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=numbers)
    return jax.nn.relu(images).sum((1, 2))


def test_the_period_is_that_of_the_strides_so_far():
    kernels = [jnp.ones((3, 3, 2, 2))] * 2
    table = layers(two_strides, kernels, jnp.ones((1, 16, 16, 2)))
    assert [grid_period(table, name) for name in ("relu_2", "relu_3")] == [2, 4]
    with pytest.raises(ValueError, match="layer 'relu_1' comes before any strided convolution"):
        grid_period(table, "relu_1")


def test_a_layer_sends_back_its_own_activation():
    """With non-negative weights guided is plain: the derivative of ‖A‖²/2."""
    kernels = [jax.random.uniform(jax.random.key(n), (3, 3, 2, 2)) for n in range(2)]
    images = jax.random.uniform(jax.random.key(2), (3, 8, 8, 2))
    sent = layer_attributions(two_strides, kernels, images, ("conv_1", "relu_3"), GUIDED)

    def energy(x):
        for kernel in kernels:
            numbers = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)
        return (x**2).sum() / 2

    np.testing.assert_allclose(sent[1], jax.grad(energy)(images), rtol=1e-4)


def made_row(layer, treatment, gain):
    gains = dict.fromkeys(("area", "best", "edges"), gain)
    measures = {"area": (0.2, 0.01), "log_energy": (np.log(3), 0.1), "share": (0.25, 0.1)}
    return {"layer": layer, "treatment": treatment, "gain_over_blur": gains, "measures": measures}


def test_the_verdict_names_gains_and_losses():
    rows = [
        made_row("a", RULE, (0.3, 0.1)),
        made_row("b", RULE, (-0.3, 0.1)),
        made_row("c", RULE, (0.1, 0.1)),
    ]
    text = verdict([*rows, made_row("d", STRIDE_1, (0.3, 0.1))])
    assert "of the best IoU more at a and less at b;" in text
    assert grid(rows[0]) == "3.00 (25.0%)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"num_images": 1}, "num_images is 1"),
        ({"size": 20}, "size is 20: expected a multiple of 8"),
        ({"networks": ("vgg_f",)}, "network_size is 72: vgg_f takes 224 only"),
        ({"networks": ("lenet",)}, r"networks has \['lenet'\]"),
    ],
)
def test_bad_settings_are_named_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMOKE, **change)


def test_too_few_images_are_named_before_rendering(tmp_path, monkeypatch):
    monkeypatch.setattr(stride_artifacts, "in_memory", lambda *args, **options: 1 / 0)
    with pytest.raises(ValueError, match="num_per_class is 1: leaves"):
        stride_artifacts.render_data(dataclasses.replace(SMOKE, num_per_class=1))
