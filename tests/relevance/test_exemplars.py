"""The streaming search against a NumPy search; images and weights are such that activations are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms.networks import NHWC
from vexplain.datasets import ArraySource, epoch_batches
from vexplain.relevance import Exemplars, Pick, top_exemplars
from vexplain.relevance.exemplars import found
from vexplain.streaming import fold
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import channels_last, layers, read

CLASSES = ("lily", "rose", "oak", "fir")  # no image shows a fir
NUM_IMAGES, K = 21, 6
PICKS = (
    Pick("conv_1", 2),
    Pick("conv_1", 0, label=1),
    Pick("relu_1", 3, label=2),
    Pick("pool_1", 1),
    Pick("dense_1", 4, label=0),
    Pick("relu_1", 1, label=3),
)


def apply(variables, images):
    kernel, dense = variables
    x = lax.conv_general_dilated(images, kernel, (3, 2), ((2, 1), (0, 2)), dimension_numbers=NHWC)
    return jax.nn.relu(x).max((1, 2)) @ dense


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    kernel, dense = rng.integers(-2, 3, (4, 3, 2, 5)), rng.integers(-2, 3, (5, 6))
    kernel[..., 2] = np.abs(kernel[..., 2])  # likes bright images
    return jnp.asarray(kernel, jnp.float32), jnp.asarray(dense, jnp.float32)


@pytest.fixture(scope="module")
def source():
    """Integers over 4; the first ten images come twice, and the first, which fills batches up, is white."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 5, (NUM_IMAGES, 13, 11, 2)) / 4
    images[0] = 1
    images[10:20] = images[:10]
    return ArraySource(images, np.arange(NUM_IMAGES) * 2 % 3, class_names=CLASSES)


@pytest.fixture(scope="module")
def table(variables, source):
    return layers(apply, variables, source[[0]]["images"])


@pytest.fixture(scope="module")
def expected(variables, source, table):
    """Every image is looked at; sorted by activation, then by index; the first position of a tie."""
    names = sorted({pick.layer for pick in PICKS})
    activations = jax.jit(read(apply, names))(variables, source[np.arange(NUM_IMAGES)]["images"])[1]
    columns = []
    for pick in PICKS:
        maps = np.asarray(channels_last(activations[pick.layer], table[pick.layer]))[..., pick.channel]
        rows = []
        for n in range(NUM_IMAGES):
            if pick.label in (None, source.labels[n]):
                place = np.argwhere(maps[n] == maps[n].max())[0] if maps[n].ndim else (0, 0)
                rows.append((-maps[n].max(), n, *place))
        best = [(-value, *rest) for value, *rest in sorted(rows)[:K]]
        columns.append(best + [(-np.inf, -1, None, None)] * (K - len(best)))
    return np.array(columns, object)


def search(variables, source, table, *, batch_size, mesh=None, picks=PICKS, num_images=K):
    init, update = top_exemplars(apply, table, picks, num_images=num_images)
    batch_fn, num_steps = epoch_batches(source, batch_size)
    return fold(update, init(), batch_fn, num_steps=num_steps, constants=variables, mesh=mesh)


def test_the_cases_hold_ties_and_empty_places(expected):
    values = expected[..., 0].astype(float)
    for pick in (0, 1, 3):
        assert len(set(values[pick])) < K
    assert np.isfinite(values[:5]).all()
    assert expected[0, :2, 1].tolist() == [0, 10]  # the image that fills batches up is the best
    assert not np.isfinite(values[5]).any()


@pytest.mark.parametrize(("batch_size", "num_devices"), [(4, 1), (NUM_IMAGES, 1), (8, 8), (32, 8)])
def test_the_best_images_are_those_of_a_full_search(
    batch_size, num_devices, variables, source, table, expected
):
    mesh = data_mesh(num_devices)
    best = search(variables, source, table, batch_size=batch_size, mesh=mesh)
    np.testing.assert_array_equal(best.values, expected[..., 0].astype(np.float32))
    np.testing.assert_array_equal(best.indices, expected[..., 1].astype(int))
    filled = expected[..., 1] >= 0
    np.testing.assert_array_equal(best.rows[filled], expected[..., 2][filled].astype(int))
    np.testing.assert_array_equal(best.columns[filled], expected[..., 3][filled].astype(int))


def test_more_places_than_images_stay_empty(variables, source, table):
    best = search(
        variables, source, table, batch_size=8, picks=(Pick("relu_1", 3, 2), Pick("relu_1", 3)), num_images=30
    )
    of_class = np.flatnonzero(source.labels == 2)
    assert sorted(best.indices[0, : len(of_class)].tolist()) == of_class.tolist()
    assert np.isneginf(best.values[0, len(of_class) :]).all()
    assert (best.indices[0, len(of_class) :] == -1).all()
    assert sorted(best.indices[1, :NUM_IMAGES].tolist()) == list(range(NUM_IMAGES))
    values, indices, rows, columns = found(best, 0)
    assert len(values) == len(indices) == len(rows) == len(columns) == len(of_class)
    assert np.isfinite(values).all()


def test_padding_never_enters(variables, source, table):
    picks = (Pick("conv_1", 2), Pick("conv_1", 2, 1), Pick("dense_1", 0))
    init, update = top_exemplars(apply, table, picks, num_images=5)
    update = jax.jit(update)
    weights = np.array([1, 0, 1, 1, 0, 0, 1, 1], np.float32)
    batch = {**source[np.arange(8)], "weights": weights}
    expected = update(init(), {name: values[weights > 0] for name, values in batch.items()}, variables)
    for filling in (1e6, np.nan):
        images = np.where(weights[:, None, None, None] > 0, batch["images"], np.float32(filling))
        found = update(init(), batch | {"images": images}, variables)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_searching_all_images_needs_no_labels(variables, source, table):
    batch = {name: values for name, values in source[np.arange(8)].items() if name != "labels"}
    init, update = top_exemplars(apply, table, [Pick("conv_1", 2)], num_images=3)
    assert (jax.jit(update)(init(), batch, variables).indices >= 0).all()
    init, update = top_exemplars(apply, table, [Pick("conv_1", 2), Pick("conv_1", 2, 0)], num_images=3)
    with pytest.raises(KeyError, match=r'a pick that names a class needs "labels", got \[.*images'):
        jax.eval_shape(update, init(), batch, variables)


def _transposed(kernel, images):
    x = lax.conv_general_dilated(images.transpose(0, 2, 1, 3), kernel, (1, 1), "SAME", dimension_numbers=NHWC)
    return x.mean((1, 2))


def _channels_first(kernel, images):
    x = lax.conv_general_dilated(
        images.transpose(3, 0, 1, 2), kernel, (1, 1), "SAME", dimension_numbers=("CNHW", "HWIO", "CNHW")
    )
    return x.mean((2, 3)).T


def _without_rows(kernel, images):
    return (images.sum(1) @ kernel[0, 0]).mean(1)


def _without_columns(kernel, images):
    return (images.sum(2) @ kernel[0, 0]).mean(1)


@pytest.mark.parametrize(
    ("network", "layer", "position"),
    [
        (_transposed, "conv_1", (4, 6)),
        (_channels_first, "conv_1", (4, 6)),
        (_without_rows, "dense_1", (0, 6)),
        (_without_columns, "dense_1", (4, 0)),
    ],
)
def test_rows_and_columns_are_those_of_the_image_whatever_the_axes(network, layer, position):
    """One bright pixel at row 4, column 6, and 1x1 kernels."""
    images = jnp.zeros((3, 7, 9, 2)).at[1, 4, 6, 1].set(1.0)
    kernel = jnp.ones((1, 1, 2, 5))
    table = layers(network, kernel, images)
    init, update = top_exemplars(network, table, [Pick(layer, 3)], num_images=1)
    best = jax.jit(update)(init(), {"images": images, "indices": jnp.arange(3)}, kernel)
    assert (best.indices[0, 0], best.values[0, 0]) == (1, 1)
    assert (int(best.rows[0, 0]), int(best.columns[0, 0])) == position
    top, left, bottom, right = table[layer].visible(*position)
    assert top <= 4 < bottom
    assert left <= 6 < right


def test_one_trace_serves_all_batches(variables, source, table):
    traces = []

    def counted(variables, images):
        traces.append(1)
        return apply(variables, images)

    init, update = top_exemplars(counted, table, PICKS, num_images=K)
    batch_fn, num_steps = epoch_batches(source, 4)
    fold(update, init(), batch_fn, num_steps=1, constants=variables)
    once = len(traces)
    state = fold(update, init(), batch_fn, num_steps=num_steps, constants=variables)
    assert len(traces) == once
    assert isinstance(state, Exemplars)


@pytest.mark.parametrize(
    ("picks", "num_images", "error", "message"),
    [
        ([], 3, ValueError, "picks: no feature was given"),
        ([Pick("conv_1", 0)], 0, ValueError, "num_images is 0: expected at least 1"),
        ([Pick("conv_1", 5)], 3, ValueError, "layer 'conv_1' has channels 0 to 4, got 5"),
        ([Pick("conv_1", -1)], 3, ValueError, "layer 'conv_1' has channels 0 to 4, got -1"),
        ([Pick("conv_1", 0, -1)], 3, ValueError, "labels go from 0 on, got -1"),
        ([Pick("conv1", 0)], 3, KeyError, "no layer 'conv1'.*conv_1"),
    ],
)
def test_bad_picks_are_named(picks, num_images, error, message, table):
    with pytest.raises(error, match=message):
        top_exemplars(apply, table, picks, num_images=num_images)
