"""Try-on: outlines by Pillow, texture that goes with the garment, contexts that tell nothing of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import maximum_filter

from vexplain.datasets import context_images
from vexplain.datasets.batches import gather
from vexplain.datasets.shape_swap import ShapeSwapSource
from vexplain.datasets.try_on import (
    GARMENT,
    SPLITS,
    TryOnSource,
    draw_factors,
    in_catalog_pose,
    paired_test,
    render,
    render_factors,
)
from vexplain.datasets.try_on.renderer import _BODY, _FLAT, _SHOULDER, _SLEEVE
from vexplain.datasets.try_on.source import render_batch

SIZE, COUNT = 16, 100  # as many as are rendered at once: one program serves all


@pytest.fixture(scope="module")
def pairs():
    return paired_test(COUNT, size=SIZE)


def one(factors, n):
    return type(factors)(*(np.asarray(leaf)[n] for leaf in factors))


def to_image(points, factors, domain):
    """Points of the garment's frame in image heights."""
    worn = (factors.center_x, factors.center_y, factors.scale, factors.rotation)
    product = (factors.product_x, factors.product_y, factors.product_scale, factors.product_rotation)
    x, y, scale, angle = worn if domain else product
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.array([x, y]) + scale * np.asarray(points) @ turn.T


def sleeve_points(local, side, angle):
    """Points along and across an arm that hangs at an angle, in the garment's frame."""
    along, across = np.asarray(local).T
    right = _SHOULDER[0] + along * np.sin(angle) + across * np.cos(angle)
    return np.stack([side * right, _SHOULDER[1] + along * np.cos(angle) - across * np.sin(angle)], axis=-1)


def angles(factors, domain):
    return (factors.left_arm, factors.right_arm) if domain else (_FLAT, _FLAT)


@pytest.mark.parametrize("domain", [0, 1])
def test_masks_are_what_pillow_draws(pairs, domain):
    """The body and two turned sleeves, drawn by Pillow at 32 times the size."""
    masks = (pairs.masks_a, pairs.masks_b)[domain]
    for n in range(8):
        factors, drawn = one(pairs.factors, n), Image.new("L", (32 * SIZE, 32 * SIZE))
        outlines = [_BODY] + [
            sleeve_points(_SLEEVE, side, angle)
            for side, angle in zip((-1, 1), angles(factors, domain), strict=True)
        ]
        for outline in outlines:
            places = (to_image(outline, factors, domain) + 0.5) * 32 * SIZE - 0.5
            ImageDraw.Draw(drawn).polygon([tuple(p) for p in places], fill=1)
        expected = np.asarray(drawn).reshape(SIZE, 32, SIZE, 32).mean((1, 3))
        assert np.abs(masks[n] - expected).mean() < 0.012
        assert abs(masks[n].mean() - expected.mean()) < 0.02 * expected.mean() + 0.002


def test_the_texture_goes_with_body_and_sleeves():
    """Points of the garment have the color in the worn picture that they have in the product picture."""
    factors = jax.vmap(draw_factors)(jax.random.split(jax.random.key(5), 12))
    factors = factors._replace(texture=jnp.arange(12, dtype=jnp.int32) % 3 + 1)
    drawn = [np.asarray(render_batch(factors, d, size=96, samples=1)[0]) for d in (0, 1)]
    generator = np.random.default_rng(0)
    agreed, upright = [], []
    for n in range(12):
        own = one(factors, n)
        for side in (-1, 1):
            local = generator.uniform((0.35, -0.2), (0.7, 0.2), (60, 2))
            body = generator.uniform((-0.35, -0.6), (0.35, 0.9), (60, 2))
            colors = []
            for domain in (0, 1):
                angle = angles(own, domain)[(side + 1) // 2]
                points = np.concatenate([sleeve_points(local, side, angle), body])
                x, y = np.floor((to_image(points, own, domain) + 0.5) * 96).astype(int).T
                colors.append(drawn[domain][n, y, x])
            same = np.abs(colors[0] - colors[1]).max(-1) < 0.02
            agreed.append([same[:60].mean(), same[60:].mean()])
            unturned = sleeve_points(local, side, _FLAT)  # where the sleeve is not, in the worn picture
            x, y = np.floor((to_image(unturned, own, 1) + 0.5) * 96).astype(int).T
            upright.append((np.abs(colors[0][:60] - drawn[1][n, y, x]).max(-1) < 0.02).mean())
    assert np.mean(agreed, axis=0).min() > 0.93  # points on a border may fall into the other color
    assert np.mean(upright) < 0.75


def test_the_context_tells_where_the_garment_is_and_nothing_else_of_it(pairs):
    others = pairs.factors._replace(**{name: np.roll(getattr(pairs.factors, name), 1) for name in GARMENT})
    images, masks, contexts = render_batch(others, 1, size=SIZE, samples=3)
    np.testing.assert_array_equal(masks, pairs.masks_b)
    np.testing.assert_array_equal(contexts, pairs.contexts_b)
    outside = pairs.masks_b == 0
    np.testing.assert_array_equal(np.asarray(images)[outside], pairs.images_b[outside])
    assert np.abs(np.asarray(images) - pairs.images_b)[pairs.masks_b == 1].mean() > 0.2
    removed = maximum_filter(pairs.masks_b > 0, size=(1, 3, 3), mode="constant")  # a pixel at 16
    np.testing.assert_array_equal((pairs.contexts_b == np.float32(128 / 255)).all(-1) | ~removed, True)
    np.testing.assert_array_equal(pairs.contexts_b[~removed], pairs.images_b[~removed])


def test_contexts_check_what_they_are_given():
    images, masks = np.ones((2, 9, 7, 3), np.float32), np.zeros((2, 9, 7), np.float32)
    masks[1, 2, 3] = 0.01
    found = np.asarray(context_images(images, masks, margin=0.0))
    assert (found == 0.5).any(-1).sum() == 1
    with pytest.raises(ValueError, match=r"margin is -0\.1: expected 0 or more"):
        context_images(images, masks, margin=-0.1)
    with pytest.raises(ValueError, match=r"masks has shape \(2, 9, 7, 1\): expected \(2, 9, 7\)"):
        context_images(images, masks[..., None])


def test_a_product_has_a_plain_background_and_a_figure_its_skin_and_scene(pairs):
    outside = pairs.masks_a == 0
    assert np.ptp(pairs.images_a[outside]) == 0
    assert pairs.images_a[outside].min() > 0.9
    names = ("skin", "hair", "trousers_value", "scene_value", "left_elbow")
    moved = {name: np.array(getattr(pairs.factors, name)) for name in names}
    rows = np.array_split(np.arange(COUNT), len(names))
    for name, chosen in zip(names, rows, strict=True):
        moved[name][chosen] = np.roll(moved[name][chosen], 1)
    product, _, _ = render_batch(pairs.factors._replace(**moved), 0, size=SIZE, samples=3)
    worn, masks, _ = render_batch(pairs.factors._replace(**moved), 1, size=SIZE, samples=3)
    np.testing.assert_array_equal(product, pairs.images_a)
    np.testing.assert_array_equal(masks, pairs.masks_b)
    changed = np.abs(np.asarray(worn) - pairs.images_b).max(-1) > 0.02
    assert not changed[pairs.masks_b == 1].any()
    assert all(changed[chosen].any((1, 2)).mean() > 0.8 for chosen in rows)


def test_whole_garments_are_in_the_picture(pairs):
    for masks, least, most in ((pairs.masks_a, 0.19, 0.3), (pairs.masks_b, 0.09, 0.25)):
        edge = np.concatenate([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], axis=1)
        assert (edge.max(1) > 0).mean() < 0.1
        assert least < masks.mean((1, 2)).min() <= masks.mean((1, 2)).max() < most


# --- sets ---------------------------------------------------------------------------------------------------


def test_no_garment_is_in_two_sets_but_those_of_pairs():
    count, hues = 300, {}
    for split in SPLITS:
        for domain in (0, 1):
            factors = TryOnSource(domain, num_images=count, split=split).factors(np.arange(count))
            hues[split, domain] = np.asarray(factors.hue)
            is_catalog = np.ptp(factors.product_x) == np.ptp(factors.product_scale) == 0
            assert is_catalog == (split in ("pairs", "partners"))
    for split in ("pairs", "partners"):
        np.testing.assert_array_equal(hues[split, 0], hues.pop((split, 1)))
    every = np.concatenate(list(hues.values()))
    assert len(np.unique(every)) > 0.99 * len(every)


def test_the_appearance_has_the_ranges_and_variants_of_shape_swap():
    keys = jax.random.split(jax.random.key(1), 2000)
    u, f, n = (jax.vmap(lambda k, v=v: draw_factors(k, variant=v))(keys) for v in "UFN")
    shirts = ShapeSwapSource(0, num_images=2000).factors(np.arange(2000))
    for name in GARMENT:
        found, expected = np.asarray(getattr(u, name)), np.asarray(getattr(shirts, name))
        np.testing.assert_allclose([found.min(), found.max()], [expected.min(), expected.max()], atol=0.03)
        assert abs(found.mean() - expected.mean()) < 0.1 * np.ptp(expected)
    np.testing.assert_allclose(f.frequency, 2 * u.frequency, rtol=1e-6)
    assert abs(np.exp(2j * np.pi * np.asarray(n.hue)).mean()) > 0.3 > abs(np.exp(2j * np.pi * u.hue).mean())


def test_the_paired_test_set_is_the_split_of_the_sources(pairs):
    for domain, images in ((0, pairs.images_a), (1, pairs.images_b)):
        source = TryOnSource(domain, num_images=COUNT, size=SIZE, split="pairs")
        batch = source[np.arange(COUNT)[::-1]]
        np.testing.assert_array_equal(batch["images"], images[::-1])
        assert set(batch["labels"]) == {domain}
    np.testing.assert_array_equal(pairs.targets_b[:, 0], pairs.images_b)
    found = gather(TryOnSource(1, num_images=COUNT, size=SIZE, split="pairs"), batch_size=COUNT)
    np.testing.assert_array_equal(found["context_images"], np.round(pairs.contexts_b * 255))


def test_the_same_key_gives_the_same_garment_in_both_domains(key):
    worn, mask, context, factors = render(key, 1, size=8, samples=1)
    np.testing.assert_array_equal(render_factors(factors, 1, size=8, samples=1)[0], worn)
    np.testing.assert_array_equal(context_images(worn[None], mask[None])[0], context)
    assert render(key, 0, size=8, samples=1)[3] == factors
    assert float(in_catalog_pose(factors).product_rotation) == 0


def test_another_domain_does_not_compile_again():
    for domain in (0, 1):
        TryOnSource(domain, num_images=COUNT, size=SIZE)[np.arange(COUNT)]
        if domain == 0:
            compiled = render_batch._cache_size()
    assert render_batch._cache_size() == compiled


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domain": 2}, r"domain is 2: expected one of \(0, 1\)"),
        ({"variant": "S"}, r"variant is 'S': expected one of \('U', 'N', 'F'\)"),
        ({"split": "all"}, "split is 'all'"),
        ({"size": 0}, "size is 0: expected at least 1"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TryOnSource(**{"domain": 0, **settings})
    with pytest.raises(ValueError, match="num_pairs is 0"):
        paired_test(0)
