"""The renderer: geometry by closed forms, truth by intervention, the same bytes for the same key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.datasets.an8flower import (
    COLOR_NAMES,
    MIN_COVERAGE,
    PARTS,
    RenderedSource,
    class_names,
    draw_view,
    fold_indices,
    fold_of,
    render,
    render_factors,
)
from vexplain.datasets.an8flower.scene import BASE_COLORS, CLASS_COLORS, LEAVES, PETALS
from vexplain.datasets.an8flower.solids import hit_ellipsoid, hit_tapered_cylinder

SIZE = 24


@pytest.fixture(scope="module")
def rendered():
    """Twelve views of double_12c, each in every class and neutral."""
    keys = jax.random.split(jax.random.key(3), 12)

    @jax.jit
    def all_classes(key, label):
        factors = draw_view(key, label, variant="double_12c")
        options = {"variant": "double_12c", "size": SIZE, "samples": 2}
        classes = jax.vmap(lambda other: render_factors(factors, other, **options))(jnp.arange(12))
        return classes, render_factors(factors, label, neutral=True, **options)

    return jax.device_get(jax.vmap(all_classes)(keys, jnp.arange(12)))


def test_only_the_parts_that_carry_the_classes_change(rendered):
    """Where both labels' coverages are 0, two classes are the same image, to the bit."""
    classes, _ = rendered
    for view in range(12):
        for other in range(12):
            outside = (classes.mask[view, view] == 0) & (classes.mask[view, other] == 0)
            a, b = classes.image[view, view][outside], classes.image[view, other][outside]
            np.testing.assert_array_equal(a, b)
            if other != view:
                assert not np.array_equal(classes.image[view, view], classes.image[view, other])


def test_a_neutral_part_changes_nothing_outside_the_mask(rendered):
    classes, neutral = rendered
    for view in range(12):
        outside = classes.mask[view, view] == 0
        pair = neutral.image[view][outside], classes.image[view, view][outside]
        np.testing.assert_allclose(*pair, atol=1e-6)  # rounded by two programs; a change is 0.1 and more
        np.testing.assert_array_equal(neutral.mask[view], classes.mask[view, view])
        assert np.abs(neutral.image[view] - classes.image[view, view]).max() > 0.1


def test_coverages_of_all_parts_add_up_to_one(rendered):
    classes, _ = rendered
    np.testing.assert_allclose(classes.parts.sum(-1), 1, atol=1e-5)
    for label in range(12):
        part = PETALS if label < 6 else LEAVES
        np.testing.assert_array_equal(classes.mask[:, label], classes.parts[:, label, :, :, part])


def test_images_are_three_dimensional(rendered):
    """One part shows many brightnesses: it is shaded; and its outline is anti-aliased."""
    classes, _ = rendered
    inside = classes.parts[0, 0, :, :, PETALS] == 1
    assert np.ptp(classes.image[0, 0][inside].max(-1)) > 0.05
    assert ((classes.mask > 0.1) & (classes.mask < 0.9)).any()


@pytest.mark.parametrize("variant", ["single_6c", "double_12c"])
def test_the_part_that_carries_the_class_is_visible_in_every_view(variant):
    labels = jnp.arange(396) % len(class_names(variant))
    keys = jax.random.split(jax.random.key(11), len(labels))

    @jax.jit
    def covered(keys, labels):
        one = lambda pair: render(*pair, variant=variant, size=64, samples=1)[1].mean()  # noqa: E731
        return jax.lax.map(one, (keys, labels))

    assert covered(keys, labels).min() >= MIN_COVERAGE


def test_the_view_knows_the_part_and_not_the_color(key):
    draw = jax.jit(lambda label: draw_view(key, label, variant="double_12c"))
    views = [jax.tree.leaves(draw(label)) for label in range(12)]
    for label in range(1, 6):
        np.testing.assert_array_equal(
            np.concatenate([np.ravel(v) for v in views[0]]),
            np.concatenate([np.ravel(v) for v in views[label]]),
        )


def test_the_same_key_gives_the_same_bytes_and_another_another(key):
    draw = jax.jit(lambda k: render(k, 1, size=SIZE))
    image, _, factors = draw(key)
    first = np.asarray(image).tobytes()
    assert first == np.asarray(draw(key)[0]).tobytes()
    assert first != np.asarray(draw(jax.random.key(1))[0]).tobytes()
    again = jax.jit(lambda f: render_factors(f, 1, size=SIZE).image)(factors)
    np.testing.assert_allclose(again, image, atol=3e-5)  # another program rounds otherwise


def test_base_colors_are_none_of_the_class_colors():
    for base in BASE_COLORS:
        assert np.linalg.norm(CLASS_COLORS - base, axis=1).min() > 0.3
    pairs = np.linalg.norm(CLASS_COLORS[:, None] - CLASS_COLORS[None], axis=-1)
    assert pairs[~np.eye(6, dtype=bool)].min() > 0.3


def test_a_sphere_is_hit_where_geometry_says():
    u, v = jnp.array([0.0, 0.3, 2.0]), jnp.array([0.0, 0.4, 0.0])
    hit = hit_ellipsoid(u, v, jnp.array([0.0, 0.0, 1.0]), jnp.eye(3))
    np.testing.assert_allclose(hit.z[:2], [2.0, 1 + np.sqrt(0.75)], rtol=1e-6)
    assert hit.z[2] == -jnp.inf
    np.testing.assert_allclose(jnp.stack(hit.normal)[:, 1], [0.3, 0.4, np.sqrt(0.75)], rtol=1e-6)


def test_a_cone_is_hit_where_geometry_says():
    """A cone along y from radius 1 to 0.5: at height t the radius is 1 - t / 4."""
    u, v = jnp.array([0.3, 0.3, 0.3, 0.9]), jnp.array([0.5, 1.9, 2.1, 1.9])
    hit = hit_tapered_cylinder(u, v, jnp.zeros(3), jnp.array([0.0, 2.0, 0.0]), jnp.array([1.0, 0.5]))
    radius = 1 - np.array([0.5, 1.9]) / 4
    np.testing.assert_allclose(hit.z[:2], np.sqrt(radius**2 - 0.09), rtol=1e-5)
    assert (hit.z[2:] == -jnp.inf).all()
    x, y, z = (np.asarray(n)[0] for n in hit.normal)
    np.testing.assert_allclose([x / z, y / np.hypot(x, z)], [0.3 / hit.z[0], 0.25], rtol=1e-4)


def test_names_of_classes():
    assert class_names("single_6c") == tuple(f"{c} petals" for c in COLOR_NAMES)
    assert len(class_names("double_12c")) == 12
    assert PARTS[PETALS] == "petals"
    with pytest.raises(ValueError, match="variant is 'triple': expected one of"):
        class_names("triple")


def test_a_rendered_source_is_balanced_lazy_and_repeatable():
    source = RenderedSource("double_12c", num_per_class=3, size=16, samples=1)
    assert len(source) == 36
    batch = source[np.array([5, 17, 29])]
    assert batch["labels"].tolist() == [5, 5, 5]
    np.testing.assert_array_equal(batch["images"][1], source[np.array([17])]["images"][0])
    np.testing.assert_array_equal(source[17]["images"], batch["images"][1])  # one integer, one example
    steps = np.asarray(batch["images"]) * 255
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)


def test_folds_depend_on_the_key_alone_and_share_the_examples():
    source = RenderedSource("single_6c", num_per_class=200, size=16)
    tests = [fold_indices(source, fold)[1] for fold in range(5)]
    np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(1200))
    assert all(180 < len(t) < 300 for t in tests)
    train, test = fold_indices(source, 2)
    assert not set(train) & set(test)
    assert {fold_of(k) for k in source.keys(test[:5])} == {2}
    larger = RenderedSource("single_6c", num_per_class=300, size=32)
    assert set(test) <= set(fold_indices(larger, 2)[1])
    with pytest.raises(ValueError, match="fold is 5"):
        fold_indices(source, 5)


def test_bad_numbers():
    with pytest.raises(ValueError, match="num_per_class is 0"):
        RenderedSource(num_per_class=0)


@pytest.mark.parametrize("difficulty", ["plain", "context"])
def test_an_accelerator_is_asked_for_products_in_full_float32(difficulty):
    def image(key):
        return render(key, 0, size=16, samples=1, difficulty=difficulty)[0]

    program = str(jax.make_jaxpr(image)(jax.random.key(0)))
    products = program.count("= dot_general[")
    assert products > 5
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products
