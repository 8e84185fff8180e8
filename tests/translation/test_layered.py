"""Translation in layers: carriers against direct sums, layers by hand, and what the networks promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.ndimage import map_coordinates

from vexplain.datasets.shape_swap import paired_test
from vexplain.translation.layered import LayeredSettings, LayeredTranslator, LayeredWeights
from vexplain.translation.layered.carriers import Attention, Flow, Offsets, inside
from vexplain.translation.layered.compositing import (
    composite,
    dilated,
    eroded,
    estimated_coverage,
    filled_background,
    sample_bilinear,
)
from vexplain.translation.layered.networks import Codes

SETTINGS = LayeredSettings(image_size=16, width=4, appearance_size=8, shape_size=4, num_waves=2, num_copies=2)
TRANSLATOR = LayeredTranslator(SETTINGS)


@pytest.fixture(scope="module")
def generator():
    return TRANSLATOR.init(jax.random.key(0)).generator


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def pixels_of(images, coverage):
    return jnp.concatenate([jnp.asarray(images), jnp.asarray(coverage, jnp.float32)[..., None]], -1)


def test_sampling_is_that_of_scipy():
    images, places = random(2, 5, 7, 3), random(2, 4, 6, 2, seed=1) * [6, 9] - 1  # beyond the borders too
    found = sample_bilinear(images, jnp.asarray(places, jnp.float32))
    for n in range(2):
        for c in range(3):
            where = np.moveaxis(places[n], -1, 0)
            expected = map_coordinates(images[n, :, :, c], where, order=1, mode="nearest")
            np.testing.assert_allclose(found[n, :, :, c], expected, atol=1e-5)


def test_a_flow_of_zero_copies_and_another_one_shifts():
    pixels = pixels_of(random(2, 8, 8, 3), np.ones((2, 8, 8)))
    copies = Flow(2)(pixels, jnp.zeros((2, 8, 8, 4)))
    np.testing.assert_allclose(copies[..., 1, :], inside(pixels), atol=1e-6)
    right = jnp.tile(jnp.array([0.0, 3.0]), 2)  # an eighth of the image is one pixel here
    shifted = Flow(2)(pixels, jnp.broadcast_to(right, (2, 8, 8, 4)))
    np.testing.assert_allclose(shifted[:, :, :5, 0, :3], pixels[:, :, 3:, :3], atol=1e-6)


def test_attention_to_near_places_copies():
    attention = Attention(4, 2, rngs=nnx.Rngs(0), dtype=None)
    attention.nearness[...] = jnp.full(2, 9.0)
    pixels = pixels_of(random(2, 8, 8, 3), np.ones((2, 8, 8)))
    codes = Codes(jnp.zeros((2, 8)), jnp.zeros((2, 9)), (jnp.asarray(random(2, 4, 4, 4)),), pixels)
    copies = jax.jit(attention.__call__)(jnp.asarray(random(2, 4, 4, 4, seed=1)), codes)
    for head in range(2):
        np.testing.assert_allclose(copies[..., head, :3], pixels[..., :3], atol=1e-5)


def test_offsets_are_direct_sums():
    images, coverage = random(1, 7, 6, 3), np.zeros((1, 7, 6), np.float32)
    coverage[0, :5, 1:6] = 1
    pixels = pixels_of(images, coverage)
    copy = jax.jit(Offsets().__call__)(pixels)[0, :, :, 0]
    x, m = images[0].astype(np.float64), np.asarray(inside(pixels))[0, ..., 3].astype(np.float64)
    mean = (x * m[..., None]).sum((0, 1)) / m.sum()
    variance = (((x - mean) ** 2).sum(-1) * m).sum() / m.sum() + 1e-4
    few, total, found = 0.02 * m.sum(), np.zeros((7, 6)), np.zeros((7, 6, 3))
    for dy in range(-6, 7):
        for dx in range(-5, 6):
            rows, columns = np.mgrid[max(0, -dy) : min(7, 7 - dy), max(0, -dx) : min(6, 6 - dx)]
            both = m[rows, columns] * m[rows + dy, columns + dx]
            squared = ((x[rows, columns] - x[rows + dy, columns + dx]) ** 2).sum(-1)
            error = ((both * squared).sum() / (2 * variance) + few) / (both.sum() + few)
            weight = np.exp(-30 * error) * m[rows + dy, columns + dx]
            total[rows, columns] += weight
            found[rows, columns] += weight[..., None] * x[rows + dy, columns + dx]
    is_sure = total > 1e-3
    assert is_sure.sum() > 8
    np.testing.assert_allclose(copy[..., :3][is_sure], (found / total[..., None])[is_sure], atol=2e-3)
    np.testing.assert_allclose(copy[..., 3], total / (total + np.exp(-9.0)), atol=2e-2)


def test_stripes_go_on_beyond_what_is_shown_and_noise_does_not():
    stripes = np.where(np.arange(32) % 8 < 4, 0.2, 0.9)[None, None, :, None] * np.ones((1, 32, 1, 3))
    shown = np.zeros((1, 32, 32))
    shown[:, 4:28, 2:22] = 1
    offsets = jax.jit(Offsets().__call__)
    copy = offsets(pixels_of(stripes, shown))[0, :, :, 0]
    np.testing.assert_allclose(copy[..., :3], stripes[0], atol=0.05)
    assert float(copy[..., 3].min()) > 0.9
    noise = offsets(pixels_of(random(1, 32, 32, 3), shown))[0, :, :, 0]
    assert float(noise[:, 26:, 3].max()) < 0.1


def test_neighborhoods():
    coverage = jnp.zeros((1, 5, 6)).at[0, 2, 3].set(1.0)
    assert np.argwhere(dilated(coverage)[0]).tolist() == [[y, x] for y in (1, 2, 3) for x in (2, 3, 4)]
    np.testing.assert_array_equal(eroded(dilated(coverage)), coverage)


def test_the_coverage_of_a_rendered_object_is_found_and_its_background_filled():
    pairs = paired_test(6, size=32)
    found = estimated_coverage(jnp.asarray(pairs.images_a))
    assert float(jnp.abs(found - pairs.masks_a).mean()) < 0.01
    filled = filled_background(jnp.asarray(pairs.images_a), found)
    shade = np.asarray(pairs.factors.shade)[:, None, None, None]
    np.testing.assert_allclose(filled, np.broadcast_to(shade, filled.shape), atol=0.01)
    again = composite(jnp.asarray(pairs.images_a), found, filled)
    inner = np.asarray(eroded(jnp.asarray(pairs.masks_a)))[..., None] == 1
    np.testing.assert_allclose(np.where(inner, again, 0), np.where(inner, pairs.images_a, 0), atol=0.01)


@jax.jit
def drawn(generator, images, domains):
    """Translations of a batch of both domains."""
    codes = TRANSLATOR.encode(generator, images)
    places = TRANSLATOR.coordinates(generator, codes, domains)
    return composite(
        TRANSLATOR.texture(generator, codes, places),
        TRANSLATOR.coverage(generator, codes, places, domains[:, ::-1]),
        filled_background(images, codes.pixels[..., 3]),
    )


def test_a_batch_of_both_domains_is_two_batches(generator):
    pairs = paired_test(4, size=16)
    images = jnp.concatenate([pairs.images_a, pairs.images_b])
    both = drawn(generator, images, jnp.repeat(jnp.eye(2), 4, 0))
    alone = TRANSLATOR.translate(generator, pairs.images_b, direction="ba")
    np.testing.assert_allclose(both[4:], alone, atol=1e-4)
    assert float(jnp.abs(both[4:] - both[:4]).max()) > 0.1


def test_the_background_is_kept_and_codes_are_of_unit_length(generator):
    images = paired_test(4, size=16).images_b
    layers = TRANSLATOR.layers(generator, images, source="b", target="a")
    plain = dilated(estimated_coverage(jnp.asarray(images))) == 0
    keep = np.asarray(plain & (layers.coverage < 1e-3))[..., None]
    assert keep.sum() > 20
    np.testing.assert_allclose(np.where(keep, layers.image, 0), np.where(keep, images, 0), atol=0.01)
    codes = TRANSLATOR.appearance(generator, images)
    np.testing.assert_allclose(jnp.linalg.norm(codes, axis=1), 1, atol=1e-4)


def test_bad_input_is_named(generator):
    with pytest.raises(Exception, match="warp"):
        LayeredSettings(carriers=("warp",))  # type: ignore
    with pytest.raises(ValueError, match="width is 6: expected a multiple of 4"):
        LayeredSettings(width=6)
    with pytest.raises(ValueError, match="image_size is 24: expected a power of 2"):
        LayeredSettings(image_size=24)
    with pytest.raises(ValueError, match=r"overlap is -1\.0: expected a weight of 0 or more"):
        LayeredWeights(overlap=-1.0)
    with pytest.raises(ValueError, match=r"images has shape \(2, 8, 8, 3\): expected \(batch, 16, 16, 3\)"):
        TRANSLATOR.translate(generator, jnp.zeros((2, 8, 8, 3)), direction="ab")
    with pytest.raises(ValueError, match="direction is 'aa'"):
        TRANSLATOR.translate(generator, jnp.zeros((2, 16, 16, 3)), direction="aa")
