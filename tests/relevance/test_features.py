import io
import json
import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.relevance.oracles import near_duplicate_features
from vexplain.relevance import (
    Feature,
    Relevance,
    copied_features,
    feature_scores,
    features,
    find_relevance,
    gram_statistics,
    load_relevance,
    mu_lasso,
    num_features,
    relevant_union,
    save_relevance,
    top_features,
)

LAYOUT = (("conv_2", 3), ("dense_1", 2))
NAMES = ("lily", "rose", "oak", "fir")


@pytest.fixture
def relevance():
    weights = np.array(
        [
            [0.0, 0.0, 0.0, 0.0],
            [2.0, 0.0, 0.0, 0.0],
            [0.0, -1.0, 0.0, 0.0],
            [6.0, 0.1 + 0.2, 0.0, 0.0],
            [0.0, 0.0, 0.0, 4.0],
        ]
    )
    gaps, penalties = np.array([1e-12, 2e-9, 0.0, 0.0]), np.array([0.5, 0.0, 0.0, 0.0])
    return Relevance(weights, gaps, penalties, np.array(8.0), LAYOUT, NAMES, "norm")


def _statistics(responses, indicators):
    init, update, finish = gram_statistics(
        lambda _, images: (images[:, :-4], images[:, -4:]), responses.shape[1], 4
    )
    images = jnp.asarray(np.concatenate([responses, indicators], axis=1), jnp.float32)
    return finish(update(init(), {"images": images}, ()))


@pytest.fixture(scope="module")
def data():
    return near_duplicate_features(num_images=211, num_bases=15, num_classes=4, noise=1e-2, seed=0)


def test_relevance_is_found_from_statistics(data):
    responses, indicators = data
    layout = (("conv_1", 15), ("relu_1", 15), ("pool_1", 15))
    found = find_relevance(_statistics(responses, indicators), layout, mu=2, class_names=NAMES)
    assert found.weights.shape == (45, 4)
    assert np.all(found.gaps <= 1e-6)
    assert np.all(np.abs(found.weights.sum(axis=0) - 2) < 1e-12)
    # Class j was made to raise the bases 2j and 2j + 1, and those only.
    for label, name in enumerate(NAMES):
        assert features(found, name)[0].channel in (2 * label, 2 * label + 1)
    signed = find_relevance(_statistics(responses, indicators), layout, mu=20, nonnegative=False)
    assert signed.weights.min() < 0
    assert signed.class_names == ("0", "1", "2", "3")


def test_features_are_sorted_by_weight(relevance):
    assert features(relevance, "lily") == (
        Feature("dense_1", 0, 6.0),
        Feature("conv_2", 1, 2.0),
    )
    assert features(relevance, np.int64(1))[0] == Feature("conv_2", 2, -1.0)
    assert features(relevance, "oak") == ()
    np.testing.assert_array_equal(num_features(relevance), [2, 2, 0, 1])
    assert relevant_union(relevance) == {"conv_2": (1, 2), "dense_1": (0, 1)}
    assert relevance.layers == ("conv_2", "dense_1")
    for target in ("birch", 4, -1):
        with pytest.raises(ValueError, match="target: "):
            features(relevance, target)


def test_relevance_prints_as_a_table(relevance):
    lines = str(relevance).splitlines()
    assert lines[0] == "4 of 5 features of 2 layers are relevant for some of 4 classes (mu = 8)"
    assert lines[2] == "lily: 2 features, sum of |weights| 8 (at the bound), relative gap 1e-12"
    assert lines[3].split() == ["layer", "channel", "weight"]
    assert [line.split() for line in lines[4:6]] == [
        ["dense_1", "0", "6"],
        ["conv_2", "1", "2"],
    ]
    assert len({len(line) for line in lines[3:6]}) == 1
    assert any(line.startswith("oak: 0 features") for line in lines)
    assert repr(relevance) == str(relevance)


@pytest.mark.parametrize(
    "leaf", [None, object(), jax.ShapeDtypeStruct((5, 4), np.float32), np.zeros((2, 5, 4))]
)
def test_relevance_without_values_can_still_be_shown(relevance, leaf):
    """Transformations put placeholders into the leaves, and their errors show the tree."""
    shown = repr(jax.tree.map(lambda _: leaf, relevance))
    assert shown.startswith("Relevance(layout=")
    assert "lily" in shown


def test_relevance_is_a_pytree_with_static_names(relevance):
    assert len(jax.tree.leaves(relevance)) == 4
    texts = []

    @jax.jit
    def double(tree):
        texts.append(str(tree))
        return jax.tree.map(lambda leaf: 2 * leaf, tree)

    doubled = double(relevance)
    assert "lily" in texts[0]
    assert doubled.layout == LAYOUT
    assert doubled.class_names == NAMES
    np.testing.assert_allclose(doubled.weights, 2 * relevance.weights)
    assert jax.eval_shape(double, relevance).weights.shape == (5, 4)


def test_save_and_load_are_inverse(relevance, tmp_path):
    path = tmp_path / "relevance.npz"
    for _ in range(2):  # the second time over the first
        save_relevance(relevance, path)
    loaded = load_relevance(str(path))
    assert jax.tree.structure(loaded) == jax.tree.structure(relevance)
    for mine, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(relevance), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert [entry.name for entry in tmp_path.iterdir()] == ["relevance.npz"]


def test_a_failed_write_leaves_the_old_file(relevance, tmp_path, monkeypatch):
    path = tmp_path / "relevance.npz"
    save_relevance(relevance, path)
    monkeypatch.setattr(np, "savez_compressed", lambda file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_relevance(relevance, path)
    np.testing.assert_array_equal(load_relevance(path).weights, relevance.weights)
    assert [entry.name for entry in tmp_path.iterdir()] == ["relevance.npz"]


def test_files_without_a_measure_are_of_the_energy(relevance, tmp_path):
    def kept(change):
        save_relevance(relevance, tmp_path / "relevance.npz")
        arrays = dict(np.load(tmp_path / "relevance.npz"))
        metadata = json.loads(str(arrays["metadata"]))
        change(metadata)
        np.savez(tmp_path / "relevance.npz", **arrays | {"metadata": np.array(json.dumps(metadata))})
        return load_relevance(tmp_path / "relevance.npz")

    assert kept(lambda metadata: None).measure == "norm"
    assert kept(lambda metadata: metadata.pop("measure")).measure == "energy"
    with pytest.raises(ValueError, match="measure is 'sum': expected one of"):
        kept(lambda metadata: metadata.update(measure="sum"))


def test_a_damaged_file_is_named(relevance, tmp_path):
    path = tmp_path / "relevance.npz"
    save_relevance(relevance, path)
    whole = path.read_bytes()
    middle = len(whole) // 3
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    for content in (b"", b"not an archive", whole[: len(whole) // 2], whole[:-5], flipped):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"relevance\.npz' is damaged or holds no relevance"):
            load_relevance(path)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"relevance\.npz' is damaged"):
        load_relevance(path)
    save_relevance(relevance, path)
    arrays = dict(np.load(path))
    for bad in (np.arange(5), np.zeros(5), np.full(4, -1), np.full(5, -2)):
        np.savez(path, **arrays | {"copied": bad})
        with pytest.raises(ValueError, match=r"copied: expected"):
            load_relevance(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"relevance\.npz' is damaged"):
        load_relevance(path)
    with pytest.raises(FileNotFoundError):
        load_relevance(tmp_path / "absent.npz")


def test_scores_follow_the_definition(relevance):
    responses = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 5)), jnp.float32)
    targets = jnp.array([1, 0, 2])
    jitted = jax.jit(feature_scores)
    scores = jitted(responses, relevance, targets)
    norms = np.array([8.0, 1.3, 1.0, 4.0])
    expected = np.asarray(responses) * (relevance.weights / norms).T[np.asarray(targets)]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    jitted(responses, relevance, jnp.array([3, 3, 3]))
    assert jitted._cache_size() == 1
    assert bool(jnp.all(jnp.isnan(feature_scores(responses[:1], relevance, jnp.array([4])))))
    with pytest.raises(ValueError, match="expected the 5 features"):
        feature_scores(responses[:, :4], relevance, targets)


def test_top_features_are_positive_or_marked():
    scores = jnp.array([[0.0, 0.3, -1.0, 0.5], [0.0, 0.0, 0.0, 0.0], [0.1, 0.4, 0.2, 0.3]])
    best = jax.jit(top_features, static_argnums=1)(scores, 3)
    np.testing.assert_array_equal(best.valid, [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(best.indices[0, :2], [3, 1])
    np.testing.assert_array_equal(best.indices[2], [1, 3, 2])
    np.testing.assert_allclose(best.scores, [[0.5, 0.3, 0], [0, 0, 0], [0.4, 0.3, 0.2]])
    assert top_features(scores, 4).indices.shape == (3, 4)
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"expected 1 to 4, the features there are, got {count}"):
            top_features(scores, count)


def test_statistics_that_do_not_fit_raise(data):
    statistics = _statistics(*data)
    with pytest.raises(ValueError, match="layout: has 5 features, but the statistics were made of"):
        find_relevance(statistics, LAYOUT)
    layout = (("conv_1", 45),)
    with pytest.raises(ValueError, match="9 images have a label outside 0 to 3"):
        find_relevance(statistics._replace(total=statistics.total + 9), layout)
    with pytest.raises(ValueError, match="no image of class 'rose'"):
        find_relevance(
            statistics._replace(counts=statistics.counts * [1, 0, 1, 1], total=np.array(100.0)),
            layout,
            class_names=NAMES,
        )
    with pytest.raises(ValueError, match="gram: holds NaN"):
        find_relevance(statistics._replace(gram=statistics.gram * [np.nan, *[1] * 44]), layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": lambda a: a * np.nan}, "weights: expected finite numbers"),
        ({"mu": lambda a: -a}, "mu: expected a positive number"),
        ({"layout": lambda e: [[e[0][0], -e[0][1]], *e[1:]]}, "has -3 channels: expected a whole number"),
        ({"layout": lambda e: [[e[0][0], float("inf")], *e[1:]]}, "has inf channels"),
    ],
)
def test_values_that_no_relevance_has_are_refused(change, message, relevance, tmp_path):
    path = tmp_path / "relevance.npz"
    save_relevance(relevance, path)
    arrays = dict(np.load(path))
    metadata = json.loads(str(arrays["metadata"]))
    for name, fn in change.items():
        owner = metadata if name == "layout" else arrays
        owner[name] = fn(owner[name])
    np.savez(path, **arrays | {"metadata": np.array(json.dumps(metadata))})
    with pytest.raises(ValueError, match=rf"relevance\.npz' is damaged .*{message}"):
        load_relevance(path)


def test_arrays_have_the_size_that_they_say_and_a_limit(relevance, tmp_path):
    path = tmp_path / "relevance.npz"
    np.savez_compressed(path, weights=np.zeros((2**13, 2**12)))  # 33 kB
    with pytest.raises(ValueError, match="at most 1,000,000; where that is right, raise max_bytes"):
        load_relevance(path, max_bytes=1_000_000)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", header.getvalue() + bytes(8))
    with pytest.raises(ValueError, match=r"shape \(1000000000000,\).*its file is of another size"):
        load_relevance(path)


def test_one_of_several_copies_is_a_candidate(data):
    """Copies of other sizes and with noise; a layer of fewer channels holds none, whatever it holds."""
    responses, indicators = data
    single = responses[:, :15]
    joined = np.concatenate([single, 3 * single, 0.5 * responses[:, 15:30], single[:, :4]], axis=1)
    layout = (("conv_1", 15), ("relu_1", 15), ("pool_1", 15), ("dense_1", 4))
    statistics = _statistics(joined, indicators)
    copied = copied_features(np.asarray(statistics.gram), layout)
    is_copy = copied >= 0
    lengths = np.linalg.norm(joined, axis=0)
    cosines = (joined[:, :15] * joined[:, 30:45]).sum(0) / (lengths[:15] * lengths[30:45])
    assert 0 < (cosines >= 0.99).sum() < 15  # both kinds
    np.testing.assert_array_equal(is_copy[:15], False)
    np.testing.assert_array_equal(copied[15:30], np.arange(15))
    np.testing.assert_array_equal(is_copy[30:45], cosines >= 0.99)
    np.testing.assert_array_equal(is_copy[45:], False)
    one = find_relevance(statistics, layout, mu=2, copies="one")
    assert not one.weights[is_copy].any()
    alone = mu_lasso(
        np.asarray(statistics.gram[~is_copy][:, ~is_copy], np.float64),
        np.asarray(statistics.cross[~is_copy], np.float64),
        np.asarray(statistics.counts, np.float64),
        mu=2,
    )
    np.testing.assert_allclose(one.weights[~is_copy], alone.weights, atol=1e-4)
    every = find_relevance(statistics, layout, mu=2)
    assert every.weights[is_copy].any()
    told = re.findall(r"relu_1 +(\d+) +\S+  copy of conv_1\[(\d+)\]", repr(every))
    assert told
    assert all(first == second for first, second in told)
    assert repr(one).count("copy of") == 0


def test_both_solvers_find_the_same(data):
    responses, indicators = data
    layout = (("conv_1", 15), ("relu_1", 15), ("pool_1", 15))
    statistics = _statistics(responses, indicators)
    host, device = (find_relevance(statistics, layout, mu=2, solver=name) for name in ("host", "device"))
    np.testing.assert_allclose(device.weights, host.weights, atol=1e-6)
