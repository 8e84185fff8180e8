"""Maps whose answer is known: edges survive, a linear gradient is its weights, brightness asks no network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.evaluation import own
from vexplain import ArraySource, learn_relevance
from vexplain.attribution import gradient, random_map, sobel_edges
from vexplain.evaluation import changed_networks, randomized_variables, sanity
from vexplain.evaluation.changed_networks import MapSimilarity
from vexplain.evaluation.explained_network import ExplainedNetwork
from vexplain.evaluation.sanity import sanity_checks
from vexplain.relevance import Relevance, relevant_features
from vexplain.transforms import GUIDED

HEIGHT, WIDTH, CLASSES, NUM_IMAGES = 12, 15, 4, 6
TARGETS = np.array([2, 0, 1, 3, 2, 1])


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables["head"] + variables["stem"] * 0


def relevance_of(variables):
    """Two features, weighted by the first numbers of the head: changed with the network."""
    weights = np.abs(np.asarray(variables["head"])[:2]) * np.array([[1, 1, 0, 1], [0, 1, 0, 0]])
    zeros = np.zeros(CLASSES)
    return Relevance(weights, zeros, zeros, 1.0, (("conv_1", 2),), tuple("abcd"))


def ramp(images):
    """Another order of pixels for every feature, which the network does not change."""
    down, across = jnp.meshgrid(jnp.arange(HEIGHT) + 0.0, jnp.arange(WIDTH) + 0.0, indexing="ij")
    return jnp.stack([down, across])


def by_relevance(apply, variables, images, targets=None, *, score=None, key=None, relevance):
    weights = jnp.asarray(relevance.weights).T[targets]
    return jnp.einsum("bf,fhw->bhw", weights, ramp(images))


METHODS = {
    "Sobel edges": sobel_edges,
    "random map": random_map,
    "gradient": gradient,
    **own.methods(
        {
            "class-blind": lambda v, x, t, keys: gradient(linear, v, x, jnp.zeros_like(t)),
            "bright": lambda v, x, t, keys: (x > 0.7).astype(x.dtype).sum(-1),
            "copy of the edges": lambda v, x, t, keys: sobel_edges(None, v, x),
            "empties": lambda v, x, t, keys: x.sum(-1) * (v["stem"][0] == 1),  # which shuffling moves
            "zero": lambda v, x, t, keys: 0 * x,
            "NaN": lambda v, x, t, keys: x / 0,
        }
    ),
    "by relevance": by_relevance,
}


@pytest.fixture(scope="module")
def network():
    weights = jax.random.normal(jax.random.key(1), (HEIGHT * WIDTH * 2, CLASSES))
    variables = {"head": weights, "stem": jnp.arange(1.0, 5)}
    return ExplainedNetwork(variables, relevance_of(variables))


@pytest.fixture(scope="module")
def batch():
    """The mask is where the image is bright."""
    masks = np.zeros((NUM_IMAGES, HEIGHT, WIDTH), np.float32)
    for n in range(NUM_IMAGES):
        masks[n, n : n + 5, 2 * n : 2 * n + 4] = 1
    images = np.random.default_rng(0).uniform(0, 0.4, (NUM_IMAGES, HEIGHT, WIDTH, 2)) + 0.6 * masks[..., None]
    images = np.where(masks[..., None] > 0, np.maximum(images, 0.75), images)
    return {"images": images.astype(np.float32), "masks": masks}


@pytest.fixture(scope="module")
def arguments(network, batch):
    return (linear, METHODS, network, batch), {
        "key": jax.random.key(7),
        "relearn": relevance_of,
        "control_names": ["Sobel edges", "random map"],
        "random_labels": network,  # which is the trained one: all maps are alike
        "targets": TARGETS,
        "signs": {"class-blind": "absolute value"},
        "num_draws": 2,
        "batch_size": 4,  # does not divide the images
    }


@pytest.fixture(scope="module")
def checks(arguments):
    positional, options = arguments
    return sanity_checks(*positional, **options)


def test_stages_go_from_the_output_down_and_a_group_alone_is_the_first_of_the_cascade(checks):
    stages = checks.scores["gradient"].stages
    assert set(stages) == {"cascading", "independent"}
    assert set(stages["cascading"]) == {"head", "stem"}
    last = list(stages["cascading"])[-1]
    np.testing.assert_array_equal(stages["cascading"][last].ssim, checks.scores["gradient"].draws[0].ssim)
    np.testing.assert_allclose(stages["independent"]["stem"].rank_correlation, 1, rtol=1e-5)
    assert (stages["independent"]["head"].rank_correlation < 0.5).all()


def positive_map(weights, target):
    return np.linalg.norm(np.maximum(weights[:, target].reshape(HEIGHT, WIDTH, 2), 0), axis=-1).ravel()


def test_the_gradient_of_a_linear_network_changes_as_its_weights_do(checks, network):
    """Which draws were made follows from the key as `sanity_checks` splits it."""
    key, old = jax.random.split(jax.random.key(7), 4)[1], network.variables
    every = [randomized_variables(k, old) for k in (key, jax.random.fold_in(key, 1))]
    maps = [[positive_map(np.asarray(v["head"], np.float64), t) for t in TARGETS] for v in (old, *every)]
    expected = [[spearmanr(*pair).statistic for pair in zip(maps[0], new, strict=True)] for new in maps[1:]]
    found = checks.scores["gradient"]
    np.testing.assert_allclose([draw.rank_correlation for draw in found.draws], expected, atol=1e-5)
    np.testing.assert_allclose(found.randomized.rank_correlation, np.mean(expected, axis=0), atol=1e-5)
    assert found.randomized.means[0] == pytest.approx(np.mean(expected), abs=1e-5)
    assert found.randomized.num_compared == NUM_IMAGES


def test_another_class_is_never_the_same_and_gives_the_correlation_of_the_weights(checks, network):
    weights = np.asarray(network.variables["head"], np.float64)
    found = checks.scores["gradient"].other_class.rank_correlation
    for target, value in zip(TARGETS, found, strict=True):
        others = [c for c in range(CLASSES) if c != target]
        possible = [
            spearmanr(positive_map(weights, target), positive_map(weights, c)).statistic for c in others
        ]
        assert np.abs(np.array(possible) - value).min() < 1e-5


def test_the_runner_up_is_the_second_largest_logit(arguments, network, batch):
    (apply, _, *rest), options = arguments
    only = {"control_names": ["gradient"], "signs": None, "random_labels": None, "modes": ()}
    found = sanity_checks(
        apply,
        ["gradient"],
        *rest,
        **{**options, **only, "targets": None},
        other_class="runner-up",
    )
    weights = np.asarray(network.variables["head"], np.float64)
    order = np.argsort(-(batch["images"].reshape(NUM_IMAGES, -1) @ weights), axis=1)
    expected = [spearmanr(positive_map(weights, a), positive_map(weights, b)).statistic for a, b, *_ in order]
    np.testing.assert_allclose(found.scores["gradient"].other_class.rank_correlation, expected, atol=1e-5)
    assert found.scores["gradient"].random_labels is None
    assert found.scores["gradient"].stages == {}


def words(checks, name):
    return [text.split(":")[0] for text in checks.scores[name].failures]


def test_verdicts(checks):
    for name in ("Sobel edges", "random map"):
        assert words(checks, name) == [
            "survives randomization",
            "same map for random labels",
            "same map for another class",
        ]
    assert (
        checks.scores["Sobel edges"]
        .failures[0]
        .startswith("survives randomization: Spearman 1.00, SSIM 1.00 (")
    )
    assert words(checks, "gradient") == ["same map for random labels"]  # the same network was given
    assert words(checks, "class-blind") == ["same map for random labels", "same map for another class"]
    assert not checks.scores["class-blind"].passes


def test_a_map_that_needs_no_network_scores_above_the_controls(checks, batch):
    bright, edges = checks.scores["bright"], checks.scores["Sobel edges"]
    assert "scores without a trained network" in words(checks, "bright")
    at_zero = batch["masks"].mean((1, 2))  # the threshold that takes in the whole image
    np.testing.assert_allclose(bright.randomized_area, 0.99 + 0.01 * (1 + at_zero) / 2, rtol=1e-5)
    assert bright.best_control == max(
        ("Sobel edges", "random map"), key=lambda name: checks.scores[name].randomized_area.mean()
    )
    assert bright.above_control[0] > 0
    np.testing.assert_array_equal(edges.trained_area, edges.randomized_area)
    best = checks.scores[bright.best_control]
    assert best.above_control == (0.0, 0.0)


def made_similarity(rho, ssim=0.0, chance=0.0):
    """(batch,) values, or one for all of 40 images."""
    arrays = (np.broadcast_to(value, 40).astype(float) for value in (rho, ssim, chance, 0.0))
    return MapSimilarity(*arrays)


@pytest.mark.parametrize(
    ("changed", "controls", "expected"),
    [
        ((0.49, 0.49), [], False),
        ((0.49, 0.49), [(0.1, 0.1)], False),
        ((0.6,), [], True),
        ((0.6,), [(0.5,), (0.3, 0.9)], True),
        ((0.6,), [(0.5,), (0.7,)], "second"),
        ((0.6,), [(0.6,), (0.1,)], "first"),  # its own map under another name
        ((0.1, 0.6), [(0.9, 0.2)], True),  # by the SSIM alone
        ((0.1, 0.6), [(0.9, 0.7)], "first"),
        ((0.1, 0.9, 0.85), [(0.9, 0.2)], False),  # sparse maps: the SSIM is that of chance
        ((0.1, 0.9, 0.5), [(0.1, 0.95, 0.9)], True),  # above chance the control has less
    ],
)
def test_a_map_survives_where_it_is_beyond_a_threshold_and_above_every_control(changed, controls, expected):
    named = dict(zip(("first", "second"), (made_similarity(*c) for c in controls), strict=False))
    found = sanity._survives(made_similarity(*changed), controls=named, key=jax.random.key(0))
    assert found == expected
    assert type(found) is type(expected)


def test_a_difference_to_a_control_has_to_be_significant():
    noise = np.random.default_rng(0).normal(size=40)
    noise -= noise.mean()
    key, map_of = jax.random.key(0), made_similarity(0.55 + noise / 5)
    assert sanity._survives(map_of, controls={"near": made_similarity(0.54)}, key=key) == "near"
    assert sanity._survives(map_of, controls={"far": made_similarity(0.3)}, key=key) is True


def test_a_control_under_another_name_is_undecided_and_does_not_pass(checks):
    copy = checks.scores["copy of the edges"]
    assert not copy.passes
    assert "survives randomization: Spearman 1.00" in copy.undecided[0]
    assert copy.undecided[0].endswith("no more alike than Sobel edges")
    assert copy.reasons[-1] == "same map for random labels (undecided)"


def test_what_the_controls_share_with_a_map_is_measured_on_the_trained_network(checks, network, batch):
    found = checks.scores["gradient"].controls
    assert set(found) == {"Sobel edges", "random map"}
    edges = np.asarray(sobel_edges(None, None, batch["images"])).reshape(NUM_IMAGES, -1)
    weights = np.asarray(network.variables["head"], np.float64)
    expected = [
        spearmanr(positive_map(weights, t), edge).statistic for t, edge in zip(TARGETS, edges, strict=True)
    ]
    np.testing.assert_allclose(found["Sobel edges"].rank_correlation, expected, atol=1e-5)
    assert set(checks.scores["Sobel edges"].controls) == {"random map"}


def test_maps_that_shuffled_networks_empty_are_counted(checks):
    found = checks.scores["empties"]
    assert found.draws[0].is_gone.tolist() == [1] * NUM_IMAGES
    assert found.randomized.share_gone == 1
    assert found.randomized.means[:2] == (0, 0)
    assert not [text for text in (*found.failures, *found.undecided) if "randomization" in text]
    assert checks.scores["gradient"].randomized.share_gone == 0


def test_a_map_that_became_constant_shares_nothing_with_the_old_one():
    varies, constant = jnp.arange(12.0).reshape(1, 3, 4) / 11, jnp.zeros((1, 3, 4))
    for first, second, expected in (
        (varies, varies, [1, 1, 0]),
        (varies, constant, [0, 0, 1]),
        (constant, varies, [np.nan, np.nan, np.nan]),
    ):
        found = changed_networks._similarity(*(jnp.tile(maps, (1, 4, 3)) for maps in (first, second)))
        np.testing.assert_allclose([found[n][0] for n in (0, 1, 3)], expected, atol=1e-5)


def test_constant_maps_are_neither_alike_nor_a_pass(checks):
    for name in ("zero", "NaN"):
        score = checks.scores[name]
        assert score.randomized.num_compared == 0
        assert np.isnan([*score.randomized.means, *score.above_control]).all()
        assert score.failures == ()
        assert [text.split(":")[1] for text in score.undecided] == 3 * [" 0 of 6 maps vary"]
        assert not score.passes


def test_the_relevance_that_was_found_again_is_what_explains(checks, network):
    """Class b weighs two ramps, whose order changes with the weights; class c has no feature."""
    new = randomized_variables(jax.random.split(jax.random.key(7), 4)[1], network.variables)  # the first
    ramps = np.asarray(ramp(None)).reshape(2, -1)
    found = checks.scores["by relevance"].draws[0].rank_correlation
    for n, target in enumerate(TARGETS):
        maps = [relevance_of(v).weights.T[target] @ ramps for v in (network.variables, new)]
        expected = np.nan if target == 2 else spearmanr(*maps).statistic
        np.testing.assert_allclose(found[n], expected, atol=1e-3)
    assert np.isnan(found).sum() == 2


def test_methods_keep_their_order(checks):
    assert list(checks.scores) == list(METHODS)


def test_jaccard_of_the_features(checks):
    np.testing.assert_array_equal(checks.jaccard["cascading"]["head"], [1, 1, np.nan, 1])
    np.testing.assert_array_equal(checks.random_labels_jaccard, [1, 1, np.nan, 1])


def test_sparse_maps_that_share_no_place_are_alike_by_chance_only():
    similarity = MapSimilarity(*(np.array([value, np.nan]) for value in (0.1, 0.9, 0.9, 0.0)))
    assert similarity.means == (0.1, 0.9, 0.9)
    assert similarity.ssim_above_chance == 0
    assert made_similarity(1, 1, 0.9).ssim_above_chance == pytest.approx(1)


def test_all_networks_share_one_program(arguments):
    (apply, _, *rest), options = arguments
    traces = []

    def edges(variables, images, targets, keys):
        traces.append(0)
        return sobel_edges(None, variables, images)

    only = {"control_names": ["edges"], "signs": None}
    sanity_checks(apply, {"edges": own.method(edges)}, *rest, **{**options, **only})
    assert len(traces) == 1


def test_mistakes_are_named(arguments, batch):
    (apply, methods, network, _), options = arguments

    def check(given=batch, **changed):
        sanity_checks(apply, methods, network, given, **{**options, **changed})

    with pytest.raises(ValueError, match="control_names is \\['edge'\\]: expected one or more"):
        check(control_names=["edge"])
    with pytest.raises(ValueError, match="control_names is \\[\\]"):
        check(control_names=[])
    with pytest.raises(ValueError, match="num_draws is 0: expected 1 or more"):
        check(num_draws=0)
    with pytest.raises(ValueError, match="modes is \\['cascade'\\]"):
        check(modes=["cascade"])
    with pytest.raises(ValueError, match="signs: there is no method 'grad'"):
        check(signs={"grad": "positive part"})
    with pytest.raises(KeyError, match="needs 'masks'"):
        check({"images": batch["images"]})


def test_the_recipe_of_the_relevant_features_is_explained_again_in_shuffled_networks():
    """Red or green decides; the shuffled network has other relevant channels, and one compiled program."""
    rng = np.random.default_rng(0)
    labels = np.arange(16) % 2
    images = rng.uniform(0, 0.3, (16, 8, 9, 2)).astype(np.float32)
    masks = np.zeros((16, 8, 9), np.float32)
    masks[:, 2:5, 3:7] = 1
    for n, label in enumerate(labels):
        images[n, ..., label] += 0.6 * masks[n]

    def apply(variables, images):
        x = jnp.einsum("bhwc,cd->bhwd", images, variables["stem"])
        return jax.nn.relu(x).mean((1, 2)) @ variables["head"]

    stem = jnp.concatenate([jnp.eye(2), -jnp.eye(2)], axis=1)
    variables = {"stem": stem, "head": jnp.array([[1.0, 0], [0, 1], [0, 0.5], [0.5, 0]])}
    source = ArraySource(images, labels, class_names=("red", "green"))

    def relearn(variables):
        return learn_relevance(apply, variables, source, layers=["relu_1"], labels="true", batch_size=16)

    recipe = functools.partial(relevant_features, num_features=1, rules=GUIDED)
    checks = sanity_checks(
        apply,
        {"recipe": recipe, "sobel_edges": sobel_edges},
        ExplainedNetwork(variables, relearn(variables)),
        {"images": images[:6], "masks": masks[:6]},
        key=jax.random.key(0),
        relearn=relearn,
        control_names=["sobel_edges"],
        modes=["independent"],
    )
    recipe = checks.scores["recipe"]
    assert set(checks.jaccard["independent"]) == {"head", "stem"}
    np.testing.assert_allclose(recipe.stages["independent"]["head"].rank_correlation, 1, rtol=1e-5)
    assert recipe.trained_area.mean() > checks.scores["sobel_edges"].trained_area.mean()
