"""Ranks by hand, by sorting, and at ties."""

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.translation import color_histogram, recall_at, reciprocal_rank, retrieval_ranks


def test_ranks_are_places_in_the_sorted_distances():
    random = np.random.default_rng(0)
    outputs, galleries = random.random((6, 5, 7, 3), np.float32), random.random((6, 9, 5, 7, 3), np.float32)
    distances = np.linalg.norm((galleries - outputs[:, None]).reshape(6, 9, -1), axis=2)
    places = 1 + np.argsort(np.argsort(distances, axis=1), axis=1)
    for place in (0, 4, 8):
        ranks = retrieval_ranks(outputs, galleries, truth_index=place)
        np.testing.assert_array_equal(ranks, places[:, place])
    np.testing.assert_array_equal(jax.jit(retrieval_ranks)(outputs, galleries), places[:, 0])


def test_the_truth_is_first_and_what_is_as_close_counts_as_closer():
    gallery = np.tile(np.array([0.2, 0.5, 0.5, 0.9], np.float32)[:, None, None, None], (1, 3, 4, 3))
    galleries = np.stack([gallery] * 3)
    outputs = np.stack([gallery[0], gallery[1], np.full_like(gallery[0], np.nan)])
    np.testing.assert_array_equal(retrieval_ranks(outputs, galleries), [1, 3, 4])
    np.testing.assert_array_equal(retrieval_ranks(outputs, galleries, truth_index=1), [3, 2, 4])


def test_recall_and_reciprocal_rank():
    ranks = jnp.array([1, 2, 5, 20])
    np.testing.assert_array_equal(recall_at(ranks), [1, 0, 0, 0])
    np.testing.assert_array_equal(recall_at(ranks, k=5), [1, 1, 1, 0])
    np.testing.assert_allclose(reciprocal_rank(ranks), [1, 0.5, 0.2, 0.05])


def test_ranks_by_codes_are_ranks_by_their_products():
    random = np.random.default_rng(1)
    codes, candidates = random.normal(size=(5, 8)), random.normal(size=(5, 7, 8))
    codes, candidates = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (codes, candidates))
    products = np.einsum("nd,nkd->nk", codes, candidates)
    expected = (products >= products[:, :1]).sum(1)
    found = retrieval_ranks(codes.astype(np.float32), candidates.astype(np.float32))
    np.testing.assert_array_equal(found, expected)


def test_the_histogram_is_that_of_numpy():
    random = np.random.default_rng(2)
    images, masks = random.random((2, 6, 5, 3)).astype(np.float32), (random.random((2, 6, 5)) < 0.5)
    found = color_histogram(images, masks.astype(np.float32), num_bins=3)
    for n in range(2):
        counts, _ = np.histogramdd(images[n][masks[n]], bins=(3, 3, 3), range=[(0, 1)] * 3)
        np.testing.assert_allclose(found[n], counts.ravel() / masks[n].sum(), atol=1e-6)
    np.testing.assert_array_equal(color_histogram(images, np.zeros((2, 6, 5), np.float32)), 0)
