"""Galleries: the partner is the first, all others differ, and matched colors leave only the pattern."""

import numpy as np
import pytest

from vexplain.datasets import patterned, shape_swap, try_on
from vexplain.datasets.appearance import two_colors
from vexplain.translation import color_histogram, in_batches, retrieval_ranks

SIZE, COUNT, MEMBERS = 16, 48, 8


@pytest.fixture(
    scope="module", params=[(shape_swap, {"level": 4}), (try_on, {})], ids=["shape_swap", "try_on"]
)
def case(request):
    """Pairs that have a pattern, and their galleries."""
    room, settings = request.param
    pairs = patterned(room.paired_test(COUNT, size=SIZE, **settings))
    made = {
        matched: room.galleries(pairs, "ab", matched=matched, num_members=MEMBERS, **settings)
        for matched in ("pose", "colors")
    }
    return room, pairs, made


def recall(queries, galleries):
    return float((in_batches(retrieval_ranks, queries, galleries) == 1).mean())


def histograms(images, masks):
    codes = in_batches(color_histogram, images.reshape(-1, *images.shape[-3:]), masks)
    return codes.reshape(*images.shape[:-3], -1)


def test_matched_colors_leave_only_the_pattern(case):
    room, pairs, galleries = case
    queries, masks = histograms(pairs.images_a, pairs.masks_a), np.repeat(pairs.masks_b, MEMBERS, axis=0)
    found = {}
    for matched, made in galleries.items():
        assert made.shape == (len(pairs.images_a), MEMBERS, SIZE, SIZE, 3)
        np.testing.assert_array_equal(made[:, 0], pairs.images_b)
        assert recall(pairs.images_b, made) == 1  # no other member is the same image
        found[matched] = recall(queries, histograms(made, masks))
        is_same_around = np.ptp(made, axis=1).max(-1)[pairs.masks_b == 0].max() == 0
        assert is_same_around == (matched == "colors" or room is try_on)  # the shade is part of shape swap's
    assert found["pose"] > 0.8
    assert found["colors"] < 0.25  # chance is 0.125


def test_members_of_matched_colors_have_the_two_colors_in_like_shares(case):
    """Of the inner pixels, by which of the two colors of the factors is nearer."""
    _, pairs, galleries = case
    made = galleries["colors"]
    first, second = (np.stack(c, -1)[:, None, None, None] for c in two_colors(pairs.factors))
    near_first, near_second = (np.abs(made - color).sum(-1) for color in (first, second))
    inner = pairs.masks_b[:, None] == 1
    between = near_first + near_second - np.abs(first - second).sum(-1)
    assert np.abs(between * inner).max() < 0.05  # every inner pixel is a mixture of the two
    shares = ((near_second < near_first) * inner).sum((2, 3)) / inner.sum((2, 3))
    others = np.abs(shares[:, 0] - np.roll(shares[:, 0], 1)).mean()
    assert np.abs(shares - shares[:, :1]).mean() < 0.6 * others
    assert 0.1 < shares[:, 0].mean() < 0.9


def test_galleries_name_what_they_cannot_do(case):
    room, pairs, _ = case
    settings = {"level": 4} if room is shape_swap else {}
    with pytest.raises(ValueError, match=r"matched is 'shape': expected one of \('pose', 'colors'\)"):
        room.galleries(pairs, "ab", matched="shape", **settings)
    with pytest.raises(ValueError, match=r"direction is 'a': expected one of \('ab', 'ba'\)"):
        room.galleries(pairs, "a", **settings)
    plain = pairs._replace(factors=pairs.factors._replace(texture=0 * pairs.factors.texture))
    with pytest.raises(ValueError, match=r"have no pattern, .* pass patterned\(pairs\)"):
        room.galleries(plain, "ab", matched="colors", **settings)
    with pytest.raises(ValueError, match="are plain: expected some with a pattern"):
        patterned(plain)


def test_patterned_keeps_rows_together():
    pairs = try_on.paired_test(12, size=SIZE)
    kept = patterned(pairs)
    chosen = np.flatnonzero(pairs.factors.texture)
    assert 0 < len(chosen) < 12
    np.testing.assert_array_equal(kept.contexts_b, pairs.contexts_b[chosen])
    np.testing.assert_array_equal(kept.factors.hue, pairs.factors.hue[chosen])


def test_an_exemplar_has_the_own_factor_of_the_partner_and_nothing_else_of_it():
    pairs = shape_swap.paired_test(30, level=3, size=16)
    for direction, name in (("ab", "spikes"), ("ba", "corners")):
        found = shape_swap.exemplars(pairs, direction, level=3)
        domain = "ab".index(direction[1])
        source = shape_swap.ShapeSwapSource(domain, level=3, num_images=30, size=16, split="test")
        is_same = np.asarray(getattr(source.factors(np.arange(30)), name)) == getattr(pairs.factors, name)
        assert 0 < is_same.sum() < 30
        differs = np.abs(found - source[np.arange(30)]["images"]).max((1, 2, 3)) > 0.01
        np.testing.assert_array_equal(differs, ~is_same)
        partners = (pairs.images_a, pairs.images_b)[domain]
        assert np.abs(found - partners).mean((1, 2, 3)).min() > 0.01
    with pytest.raises(ValueError, match="direction is 'aa'"):
        shape_swap.exemplars(pairs, "aa", level=3)
