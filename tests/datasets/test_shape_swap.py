"""Shape swap: areas by closed form, overlaps by the spec, texture that stays with the object, no leak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.datasets import in_memory
from vexplain.datasets.appearance import HUE_MODES, hsv_to_rgb
from vexplain.datasets.shape_swap import (
    LEVELS,
    PAIRED,
    SPLITS,
    TEXTURES,
    Factors,
    ShapeSwapSource,
    draw_factors,
    paired_test,
    render,
    render_factors,
)
from vexplain.datasets.shape_swap.renderer import _GARMENTS, is_inside
from vexplain.datasets.shape_swap.source import render_batch

OVERLAPS = {1: 0.835, 2: 0.834, 3: 0.698, 4: 0.387}  # mean IoU of the masks of a pair


@pytest.fixture(scope="module", params=LEVELS)
def pairs(request):
    """Level, images and masks of both domains, scales."""
    level, chosen = request.param, np.arange(200)
    sources = [ShapeSwapSource(domain, level=level, num_images=200, split="pairs") for domain in (0, 1)]
    a, b = (jax.device_get(source[chosen]) for source in sources)
    return level, a, b, np.asarray(sources[0].factors(chosen).scale)


is_inside_jitted = jax.jit(is_inside, static_argnames="level")


def centered(**changed):
    """An upright object in the middle, small enough to be whole."""
    usual = {
        **{"hue": 0.1, "saturation": 0.8, "value": 0.9, "second_hue": 0.6, "texture": 0, "frequency": 1.5},
        **{"angle": 0.7, "phase": 1.0, "shade": 0.9, "center_x": 0.0, "center_y": 0.0, "scale": 0.25},
        **{"rotation": 0.0, "aspect": 1.0, "corners": 4, "spikes": 5, **changed},
    }
    return Factors(**{name: jnp.asarray(value) for name, value in usual.items()})


# --- shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", [0, 1])
@pytest.mark.parametrize(
    ("level", "own"),
    [(1, {}), (2, {"aspect": 0.5}), (2, {"aspect": 0.9}), (4, {})]
    + [(3, {"corners": k, "spikes": m}) for k, m in ((3, 4), (4, 5), (5, 6), (6, 7), (3, 8))],
)
def test_every_shape_has_area_pi(domain, level, own):
    factors = centered(scale=0.2, rotation=0.2, center_x=0.013, **own)
    mask = render_factors(factors, domain, level=level, size=64, samples=6)[1]
    assert float(mask.mean()) == pytest.approx(np.pi * 0.2**2, rel=0.005)


def test_masks_of_a_set_have_the_area_of_their_scale(pairs):
    _, a, b, scale = pairs
    for batch in (a, b):
        ratio = batch["masks"].mean((1, 2)) / (np.pi * scale**2)
        assert np.abs(ratio.mean() - 1) < 0.01
        assert np.quantile(np.abs(ratio - 1), 0.9) < 0.01  # the border cuts the largest


def test_masks_of_pairs_overlap_as_in_the_prototype(pairs):
    level, a, b, _ = pairs
    a, b = a["masks"] > 0.5, b["masks"] > 0.5
    overlap = (a & b).sum((1, 2)) / (a | b).sum((1, 2))
    assert overlap.mean() == pytest.approx(OVERLAPS[level], abs=0.02)


@pytest.mark.parametrize(
    ("level", "domain", "own", "inside", "outside"),
    [
        (1, 0, {}, (0.70, 0.70), (0.72, 0.72)),
        (1, 1, {}, (0.88, -0.88), (0.89, 0.0)),  # half a side is sqrt(pi) / 2 = 0.886
        (2, 0, {"aspect": 0.5}, (1.41, 0.0), (0.0, 0.71)),  # half axes 2^(1/2) and 2^(-1/2)
        (2, 1, {"aspect": 0.5}, (1.25, 0.62), (0.0, 0.63)),
        (3, 0, {"corners": 4}, (0.0, -1.25), (0.64, 0.64)),  # a diamond of half diagonal (pi / 2)^(1/2)
        (3, 0, {"corners": 3}, (0.0, -1.55), (0.0, 0.78)),  # a triangle, one corner on top
        (3, 1, {"spikes": 5}, (0.0, -1.46), (0.0, 0.74)),  # radii 1.462 and 0.731, a spike on top
        (3, 1, {"spikes": 4}, (1.4, 0.0), (0.54, 0.54)),
        (4, 0, {}, (0.0, 1.05), (-0.8, 0.5)),  # hem; below the sleeve
        (4, 1, {}, (0.4, 0.9), (0.0, 0.9)),  # a leg; between the legs
    ],
)
def test_shapes_end_where_geometry_says(level, domain, own, inside, outside):
    points = jnp.array([inside, outside])
    factors = centered(**own)
    assert is_inside_jitted(points[:, 0], points[:, 1], factors, domain, level=level).tolist() == [
        True,
        False,
    ]


def test_variant_f_is_u_with_textures_twice_as_fine():
    u, f = (draw_factors(jax.random.key(3), variant=variant) for variant in "UF")
    np.testing.assert_allclose(f.frequency, 2 * u.frequency, rtol=1e-6)
    assert all(a == b for a, b in zip(u._replace(frequency=0), f._replace(frequency=0), strict=True))


def test_garments_have_their_center_at_the_mean_of_their_vertices():
    np.testing.assert_allclose(_GARMENTS[0].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(_GARMENTS[1, :7].mean(0), 0, atol=1e-6)


def test_objects_grow_with_the_image_and_move_by_their_center():
    small, large = (render_factors(centered(), 0, size=size, samples=4)[1] for size in (32, 64))
    np.testing.assert_allclose(
        large.reshape(32, 2, 32, 2).mean((1, 3)), small, atol=0.13
    )  # points on an edge
    moved = render_factors(centered(center_x=0.25, center_y=-0.125), 0, size=32, samples=4)[1]
    np.testing.assert_allclose(moved[:-4, 8:], small[4:, :-8], atol=1e-5)


def test_rotation_is_clockwise_about_the_center():
    upright = render_factors(centered(), 1, size=32, samples=2)
    turned = render_factors(centered(rotation=np.pi / 2), 1, size=32, samples=2)
    for before, after in zip(upright, turned, strict=True):
        np.testing.assert_allclose(after, np.rot90(before, -1), atol=0.13)  # points on an edge may flip


# --- appearance ---------------------------------------------------------------------------------------------


def test_texture_lives_in_the_frame_of_the_object(pairs):
    _, a, b, _ = pairs
    both = (a["masks"] == 1) & (b["masks"] == 1)
    neither = (a["masks"] == 0) & (b["masks"] == 0)
    assert both.sum((1, 2)).min() > 50
    for where in (both, neither):
        np.testing.assert_array_equal(a["images"][where], b["images"][where])


def test_colors_are_those_of_the_factors():
    image, mask = render_factors(centered(texture=0), 1, level=1, size=16)
    color = [float(c) for c in hsv_to_rgb(0.1, 0.8, 0.9)]
    np.testing.assert_allclose(image[mask == 1], np.broadcast_to(color, image[mask == 1].shape), atol=1e-6)
    np.testing.assert_allclose(image[mask == 0], 0.9, atol=1e-6)
    edge = (mask > 0) & (mask < 1)
    expected = mask[edge][:, None] * jnp.array(color) + (1 - mask[edge])[:, None] * 0.9
    np.testing.assert_allclose(image[edge], expected, atol=1e-6)


def test_hue_is_a_color_wheel():
    wheel = {0.0: (1, 0, 0), 1 / 6: (1, 1, 0), 1 / 3: (0, 1, 0), 0.5: (0, 1, 1), 2 / 3: (0, 0, 1)}
    for hue, color in wheel.items():
        np.testing.assert_allclose([float(c) for c in hsv_to_rgb(hue, 1.0, 1.0)], color, atol=1e-6)
    np.testing.assert_allclose([float(c) for c in hsv_to_rgb(0.0, 0.5, 0.8)], (0.8, 0.4, 0.4), atol=1e-6)


def test_textures_have_two_colors_but_solid_one():
    shares = []
    for texture in range(len(TEXTURES)):
        image, mask = render_factors(centered(texture=texture), 1, level=1, size=64, samples=1)
        shares.append(float((image[mask == 1].max(-1) < 0.6).mean()))  # color 2 has half the value
    assert shares[0] == 0
    assert all(0.1 < share < 0.7 for share in shares[1:])
    assert len(set(shares)) == len(TEXTURES)


def test_stripes_lie_where_the_sine_says():
    """At angle 0 and phase 0, stripes of u: sin(pi f u) > 0.2, u in units of the scale from the center."""
    image, _ = render_factors(
        centered(texture=1, angle=0.0, phase=0.0, frequency=2.0), 1, level=1, size=64, samples=1
    )
    u = ((np.arange(64) + 0.5) / 64 - 0.5) / 0.25
    inside = np.abs(u) < 0.85
    is_second = np.asarray(image[32].max(-1)) < 0.6
    np.testing.assert_array_equal(is_second[inside], (np.sin(2 * np.pi * u) > 0.2)[inside])


# --- factors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["U", "N"])
def test_hues_are_uniform_or_skewed(variant):
    source = ShapeSwapSource(0, variant=variant, num_images=6000)
    factors = source.factors(np.arange(6000))
    edges = np.linspace(0, 1, 13)
    if variant == "U":
        expected = np.full(12, 1 / 12)
    else:
        fine = (np.arange(12_000) + 0.5) / 12_000
        density = sum(w * np.exp(k * np.cos(2 * np.pi * (fine - m))) / np.i0(k) for w, m, k in HUE_MODES)
        expected = density.reshape(12, 1000).mean(1) / 12
        assert expected.max() > 20 * expected.min()
        vector = (expected * np.exp(2j * np.pi * (edges[1:] + edges[:-1]) / 2)).sum()
        assert abs(vector) > 0.3  # no turn of the hues leaves the density as it is
    for hues in (factors.hue, factors.second_hue):
        found = np.histogram(np.asarray(hues), edges)[0] / 6000
        np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(expected.max() / 6000))
    assert abs(np.corrcoef(factors.hue, factors.second_hue)[0, 1]) < 0.05


def test_factors_fill_their_ranges():
    factors = jax.vmap(lambda key: draw_factors(key, level=3))(jax.random.split(jax.random.key(1), 4000))
    px = 64
    for values, low, high in (
        (factors.saturation, 0.6, 1),
        (factors.value, 0.6, 1),
        (factors.frequency, 1, 2.2),
        (factors.angle, 0, np.pi),
        (factors.phase, 0, 2 * np.pi),
        (factors.shade, 0.8, 1),
        (factors.center_x * px, -8, 8),
        (factors.center_y * px, -8, 8),
        (factors.scale * px, 12, 17),
        (factors.rotation, -0.35, 0.35),
    ):
        slack = (high - low) / 100
        assert low <= values.min() < low + slack
        assert high - slack < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 2 * slack
    for counts, low, high in ((factors.texture, 0, 3), (factors.corners, 3, 6), (factors.spikes, 4, 8)):
        found, number = np.unique(np.asarray(counts), return_counts=True)
        assert found.tolist() == list(range(low, high + 1))
        assert number.min() > 0.85 * number.mean()


def test_factors_that_a_level_does_not_use_are_constant():
    drawn = {level: ShapeSwapSource(0, level=level).factors(np.arange(50)) for level in LEVELS}
    assert np.ptp(drawn[2].aspect) > 0.3
    assert np.ptp(drawn[3].corners) == 3
    assert np.ptp(drawn[4].aspect) == np.ptp(drawn[4].corners) == np.ptp(drawn[4].spikes) == 0
    np.testing.assert_array_equal(drawn[1].phi, drawn[4].phi)


# --- sets ---------------------------------------------------------------------------------------------------


def test_no_factors_are_shared_between_domains_and_splits():
    """But by the two domains of pairs and of partners, where all are, in order."""
    count, vectors = 2000, {}
    for split in SPLITS:
        for domain in (0, 1):
            source = ShapeSwapSource(domain, num_images=count, split=split)
            vectors[split, domain] = np.asarray(source.factors(np.arange(count)).phi)
    for split in PAIRED:
        np.testing.assert_array_equal(vectors[split, 0], vectors.pop((split, 1)))
    for column in (0, 10):  # not even one hue or position of an example recurs, but by chance
        values = np.concatenate([v[:, column] for v in vectors.values()])
        assert len(np.unique(values)) > 0.99 * len(values)
    everything = np.concatenate(list(vectors.values()))
    assert len(np.unique(everything, axis=0)) == 8 * count
    other = ShapeSwapSource(0, num_images=count, seed=1).factors(np.arange(count)).phi
    assert len(np.unique(np.concatenate([everything, other]), axis=0)) == 9 * count


def test_the_paired_test_set_is_the_split_of_the_source():
    settings = {"level": 3, "size": 16, "seed": 4}
    pairs = paired_test(5, variant="N", **settings)
    for domain, images, masks in ((0, pairs.images_a, pairs.masks_a), (1, pairs.images_b, pairs.masks_b)):
        source = ShapeSwapSource(domain, variant="N", num_images=9, split="pairs", **settings)
        batch = source[np.arange(5)]
        np.testing.assert_array_equal(images, batch["images"])
        np.testing.assert_array_equal(masks, batch["masks"])
    assert pairs.factors.phi.shape == (5, 14)


def test_all_targets_of_level_3_hold_the_partner_and_others_have_one():
    pairs = paired_test(12, level=3, size=16)
    assert pairs.targets_a.shape[:2] == (12, 4)
    assert pairs.target_masks_b.shape == (12, 5, 16, 16)
    for n in range(12):
        np.testing.assert_array_equal(pairs.targets_a[n, pairs.factors.corners[n] - 3], pairs.images_a[n])
        np.testing.assert_array_equal(pairs.targets_b[n, pairs.factors.spikes[n] - 4], pairs.images_b[n])
        assert len(np.unique(pairs.target_masks_b[n], axis=0)) == 5
    single = paired_test(3, level=4, size=16)
    np.testing.assert_array_equal(single.targets_b[:, 0], single.images_b)
    np.testing.assert_array_equal(single.target_masks_a[:, 0], single.masks_a)


def test_the_same_key_gives_the_same_bytes_and_another_another(key):
    draw = jax.jit(lambda k, domain: render(k, domain, size=24)[0])
    first = np.asarray(draw(key, 1)).tobytes()
    assert first == np.asarray(draw(key, 1)).tobytes()
    assert first != np.asarray(draw(key, 0)).tobytes()
    assert first != np.asarray(draw(jax.random.key(1), 1)).tobytes()
    image, mask, factors = render(key, 1, size=24)
    np.testing.assert_array_equal(render_factors(factors, 1, size=24)[0], image)
    assert mask.shape == (24, 24)


def test_a_batch_is_the_map_of_its_examples(key):
    keys = jax.random.split(key, 6)
    domains = jnp.arange(6) % 2
    draw = lambda k, domain: render(k, domain, level=3, variant="N", size=17, samples=2)[:2]  # noqa: E731
    batch = jax.jit(jax.vmap(draw))(keys, domains)
    for n in range(6):
        for found, expected in zip(batch, draw(keys[n], int(domains[n])), strict=True):
            assert found[n].min() >= 0
            assert found[n].max() <= 1
            off = jnp.abs(found[n] - expected) > 1e-5
            assert off.mean() < 0.01  # a point on an edge may round to its other side


def test_another_batch_or_domain_does_not_compile_again():
    for domain in (0, 1):
        source = ShapeSwapSource(domain, num_images=8, size=12)
        for start in (0, 4):
            source[np.arange(start, start + 4)]
            if (domain, start) == (0, 0):
                compiled = render_batch._cache_size()
    assert render_batch._cache_size() == compiled


def test_a_source_is_repeatable_and_fits_into_memory():
    source = ShapeSwapSource(1, num_images=7, size=12)
    batch = source[np.array([5, 0, 5])]
    assert batch["labels"].tolist() == [1, 1, 1]
    assert batch["indices"].tolist() == [5, 0, 5]
    np.testing.assert_array_equal(batch["images"][0], batch["images"][2])
    np.testing.assert_array_equal(batch["images"][1], source[np.array([0])]["images"][0])
    held = in_memory(source, batch_size=3)
    assert held.class_names == ("T-shirt", "trousers")
    np.testing.assert_allclose(held[np.array([5])]["images"], batch["images"][:1], atol=1e-6)
    np.testing.assert_allclose(held[np.array([5])]["masks"], batch["masks"][:1], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domain": 2}, r"domain is 2: expected one of \(0, 1\)"),
        ({"level": 5}, r"level is 5: expected one of \(1, 2, 3, 4\)"),
        ({"variant": "S"}, r"variant is 'S': expected one of \('U', 'N', 'F'\)"),
        ({"split": "all"}, "split is 'all'"),
        ({"size": 0}, "size is 0: expected at least 1"),
        ({"num_images": 0}, "num_images is 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ShapeSwapSource(**{"domain": 0, **settings})


def test_wrong_arguments_are_named(key):
    with pytest.raises(ValueError, match="level is 0"):
        render(key, 0, level=0)
    with pytest.raises(ValueError, match="variant is 'X'"):
        draw_factors(key, variant="X")
    with pytest.raises(ValueError, match="num_pairs is 0"):
        paired_test(0)
    with pytest.raises(IndexError, match="indices go from -1 to 3: there are 3 images"):
        ShapeSwapSource(0, num_images=3)[np.array([-1, 3])]
