"""The difficulties: surroundings tell nothing of the class, and the truth is what is visible."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.datasets import in_memory, subset
from vexplain.datasets.an8flower import (
    DIFFICULTIES,
    MIN_COVERAGE,
    RenderedSource,
    draw_view,
    fold_indices,
    intervene,
    part_names,
    render_factors,
)
from vexplain.datasets.an8flower.scene import CLASS_COLORS, LEAVES, PETALS
from vexplain.datasets.an8flower.scenery import distractors

SIZE, BATCH, VARIANT = 24, 12, "double_12c"
CLASSES = np.arange(BATCH)
GRID = {"variant": VARIANT, "size": SIZE, "samples": 2}
HARD = tuple(DIFFICULTIES)[1:]
PARTS_OF_ITS_OWN = ("distractors", "context", "shortcut")


def each(fn, **options):
    """A function of factors or keys and labels, compiled for the twelve scenes."""
    return jax.jit(jax.vmap(functools.partial(fn, **options)))


@functools.cache
def view_fn(difficulty):
    return each(draw_view, variant=VARIANT, difficulty=difficulty, cue_probability=1.0)


@functools.cache
def render_fn(difficulty):
    return each(render_factors, difficulty=difficulty, **GRID)


@functools.cache
def rendered(difficulty):
    """Twelve scenes, one a class: factors, renderings, and interventions on the parts."""
    factors = view_fn(difficulty)(jax.random.split(jax.random.key(3), BATCH), CLASSES)
    shown = np.array([n // 6 * 6 + DIFFICULTIES[difficulty].color_of_class(n) for n in range(BATCH)])
    bare = render_fn("plain")(factors._replace(scenery=None), shown)
    changes = ("recolor", "base") if difficulty in PARTS_OF_ITS_OWN else ()
    changed = [each(intervene, change=c, difficulty=difficulty, **GRID)(factors, CLASSES) for c in changes]
    return jax.device_get((factors, render_fn(difficulty)(factors, CLASSES), bare, changed))


def own_part(rendering):
    part = np.where(np.arange(BATCH) < 6, PETALS, LEAVES)
    return rendering.parts[np.arange(BATCH), :, :, part]


@pytest.mark.parametrize("difficulty", HARD)
def test_coverages_add_up_and_the_mask_is_what_is_visible(difficulty):
    _, found, bare, _ = rendered(difficulty)
    assert found.parts.shape[-1] == len(part_names(difficulty))
    np.testing.assert_allclose(found.parts.sum(-1), 1, atol=1e-5)
    part = own_part(found)
    truth = part + found.parts[..., -1] if difficulty == "context" else part
    np.testing.assert_allclose(found.mask, truth, atol=1e-6)
    assert (part.mean((1, 2)) >= MIN_COVERAGE).all()
    if difficulty == "occluded":
        assert (part <= bare.mask + 1e-6).all()
        hidden = 1 - part.sum((1, 2)) / bare.mask.sum((1, 2))
        assert (hidden > 0.1).all()
        assert (hidden < 0.75).all()
        assert 0.2 < hidden.mean() < 0.6
    else:
        np.testing.assert_array_equal(part, bare.mask)


@pytest.mark.parametrize("difficulty", PARTS_OF_ITS_OWN)
def test_an_intervention_changes_the_pixels_of_its_part_alone(difficulty):
    _, found, bare, changed = rendered(difficulty)
    for change, (images, masks) in zip(("recolor", "base"), changed, strict=False):
        np.testing.assert_allclose(np.moveaxis(masks, 1, -1), found.parts, atol=1e-6)
        for part, name in enumerate(part_names(difficulty)):
            moved = np.abs(images[:, part] - found.image[:]).max(-1)
            if name == "context":  # something else comes in its place
                assert (moved.reshape(BATCH, -1).max(1) > 0.1).all()
            else:
                np.testing.assert_allclose(moved[masks[:, part] == 0], 0, atol=1e-6)
                solid = moved[masks[:, part] > 0.9]
                assert change == "base" or solid.max() > 0.03
    if len(part_names(difficulty)) > 5:  # the surroundings are gone
        np.testing.assert_allclose(changed[1].images[:, -1], bare.image, atol=1e-6)


@pytest.mark.parametrize("difficulty", HARD)
def test_surroundings_do_not_look_at_the_class(difficulty):
    """The same key and part: all six classes have the same scenery to the bit, but for a cue."""
    views = jax.device_get(view_fn(difficulty)(jnp.broadcast_to(jax.random.key(5), BATCH), CLASSES))
    if difficulty == "shortcut":
        np.testing.assert_array_equal(views.scenery.cue, CLASSES)
        views = views._replace(scenery=None)
    for values in jax.tree.leaves(views):
        for of_part in (values[:6], values[6:]):
            np.testing.assert_array_equal(of_part, np.broadcast_to(of_part[:1], of_part.shape))


def chi_square(first, second, count=6):
    table = np.zeros((count, count))
    np.add.at(table, (first, second), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return ((table - expected) ** 2 / expected).sum()


CRITICAL = 52.6  # chi-square with 25 degrees of freedom exceeds it once in a thousand


def drawn(difficulty, count=600, **options):
    keys, labels = jax.random.split(jax.random.key(7), count), jnp.arange(count) % 6
    draw = functools.partial(draw_view, variant="single_6c", difficulty=difficulty)
    scenery = jax.jit(lambda p: jax.lax.map(lambda pair: draw(*pair, **options).scenery, (keys, labels)))(0)
    return np.asarray(labels), jax.device_get(scenery)


def test_the_colors_of_distractors_are_independent_of_the_class():
    labels, scenery = drawn("distractors")
    colors = np.linalg.norm(scenery.colors[:, :, None] - CLASS_COLORS, axis=-1).argmin(-1)
    for place in range(colors.shape[1]):
        assert chi_square(labels, colors[:, place]) < CRITICAL
    assert chi_square(labels, labels) > CRITICAL  # the test could fail


def test_a_cue_tells_the_class_with_its_probability():
    labels, scenery = drawn("shortcut", cue_probability=0.8)
    agrees = scenery.cue == labels
    assert abs(agrees.mean() - 0.8) < 4 * np.sqrt(0.16 / 600)
    counts = np.bincount((scenery.cue - labels)[~agrees] % 6, minlength=6)[1:]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 18.5  # 4 degrees of freedom, 1 in 1000


def test_congruent_and_incongruent_sets_show_the_same_flowers_and_folds():
    sets = [
        RenderedSource("double_12c", 3, SIZE, 2, difficulty="shortcut", cue_probability=p) for p in (1.0, 0.0)
    ]
    congruent, incongruent = (s[np.arange(12)] for s in sets)
    np.testing.assert_array_equal(congruent["cues"], congruent["labels"])
    assert (incongruent["cues"] != incongruent["labels"]).all()
    np.testing.assert_array_equal(congruent["masks"], incongruent["masks"])
    shown = (congruent["cue_masks"] > 0) | (incongruent["cue_masks"] > 0)
    same = np.abs(congruent["images"] - incongruent["images"]).max(-1) == 0
    assert same[~shown].all()
    assert not same[shown].all()
    assert (congruent["cue_masks"] * congruent["masks"] < 0.5).all()
    for a, b in zip(fold_indices(sets[0], 1), fold_indices(sets[1], 1), strict=True):
        np.testing.assert_array_equal(a, b)
    held = subset(in_memory(sets[0], batch_size=12), np.arange(12))[np.arange(12)]
    for name in ("images", "masks", "cue_masks", "cues"):
        np.testing.assert_allclose(held[name], congruent[name], atol=1e-6)


def test_a_context_decides_between_two_classes_of_one_color():
    names = RenderedSource(difficulty="context").class_names
    assert names[4:] == ("blue petals with a pot", "blue petals with a stake")
    assert len(set(names)) == 6
    factors, found, _, changed = rendered("context")
    assert (found.parts[..., -1].mean((1, 2)) >= MIN_COVERAGE).all()

    other = render_fn("context")(factors, CLASSES + 1 - 2 * (CLASSES % 2)).image[2]
    np.testing.assert_allclose(changed[0].images[2, -1], other, atol=1e-5)  # recolored, it is the other class


def test_unknown_names_and_numbers():
    with pytest.raises(ValueError, match="difficulty is 'hard': expected one of"):
        RenderedSource(difficulty="hard")
    with pytest.raises(ValueError, match="cue_probability is 2"):
        RenderedSource(cue_probability=2.0)
    with pytest.raises(ValueError, match="change is 'erase'"):
        RenderedSource().interventions(np.array([0]), change="erase")
    factors = jax.eval_shape(lambda key: draw_view(key, 0, variant=VARIANT), jax.random.key(0))
    with pytest.raises(ValueError, match="factors come without surroundings"):
        render_factors(factors, 0, difficulty="textured", **GRID)


def test_an_own_difficulty_is_given_in_place_of_a_name():
    def draw(key, surface, asked):
        return distractors(key, surface, asked)._replace(contrast=jnp.float32(0.1))

    faint = dataclasses.replace(DIFFICULTIES["distractors"], name="faint", draw=draw)
    factors, expected, *_ = rendered("distractors")
    keys = jax.random.split(jax.random.key(3), BATCH)
    drawn = each(draw_view, variant=VARIANT, difficulty=faint)(keys, CLASSES)
    np.testing.assert_array_equal(drawn.scenery.objects.centers, factors.scenery.objects.centers)
    found = render_fn(faint)(drawn, CLASSES)
    np.testing.assert_array_equal(found.parts, expected.parts)
    shade = factors.shade[:, None, None, None]  # of the background
    np.testing.assert_allclose(found.image, shade + 0.1 * (expected.image - shade), atol=1e-5)
    assert RenderedSource(num_per_class=1, difficulty=faint).class_names[0] == "red petals"
