"""Flowers, a network and its truth from nothing; and a method of one's own beside the others in one call."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import flowers as flowers_module
from experiments import trained_tasks
from experiments.cue_tasks import cue_task
from experiments.flowers import flower_task, rendered_flowers
from experiments.trained_tasks import TaskSettings
from vexplain.attribution import gradient
from vexplain.catalog import title_of
from vexplain.classifiers import training
from vexplain.datasets.an8flower import fold_indices, part_names
from vexplain.evaluation import CEILING, CONTROLS, Benchmark, benchmark, score_task
from vexplain.streaming.devices import data_mesh

SETTINGS = TaskSettings(
    size=16, num_per_class=12, num_test=10, samples=1, width=4, epochs=2, batch_size=16, learning_rate=0.01
)


OTHERS = ["gradient", "relevant_evidence"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ground_truth")


@pytest.fixture(scope="module")
def flowers():
    return rendered_flowers(SETTINGS)


@pytest.fixture(scope="module")
def task(flowers, folder):
    return flower_task(SETTINGS, images=flowers, directory=folder)


@pytest.fixture(scope="module")
def looked_up(task):
    """The true mask of a test image, by which image it is: a method that knows what it cannot know."""
    known = task.test[np.arange(len(task.test))]

    def truth(apply, variables, images, targets=None, *, score=None, key=None):
        is_same = (jnp.asarray(images)[:, None] == known["images"]).all((2, 3, 4))
        return jnp.asarray(known["masks"])[is_same.argmax(1)]

    return truth


@pytest.fixture(scope="module")
def result(task, looked_up):
    return benchmark(looked_up, task, name="truth", methods=OTHERS, description=None)


def test_a_task_has_held_out_images_with_masks_and_the_effects_of_their_parts(task, flowers):
    assert task.name == SETTINGS.name == "single_6c, plain, flower_net"
    batch = task.test[np.arange(len(task.test))]
    assert len(task.test) == 10
    source = flowers_module._source(SETTINGS)
    in_training, held_out = fold_indices(source, SETTINGS.fold)
    np.testing.assert_array_equal(batch["images"], flowers[held_out[:10]]["images"])
    np.testing.assert_array_equal(task.train[[0, 5]]["images"], flowers[in_training[[0, 5]]]["images"])
    assert len(task.train) == len(in_training)
    assert batch["masks"].shape == (10, 16, 16)
    assert 0 <= task.accuracy <= 1
    predicted = np.asarray(task.apply(task.variables, batch["images"]).argmax(-1))
    assert task.accuracy == pytest.approx((predicted == batch["labels"]).mean())
    assert batch["part_effects"].shape == (10, 3, 5)  # recolored, gray, base; stem to disk

    changed = source.interventions(held_out[:4], change="gray")  # the second way
    logits = task.apply(task.variables, jnp.asarray(changed.images).reshape(20, 16, 16, 3)).reshape(4, 5, 6)
    before = task.apply(task.variables, batch["images"][:4])
    rows = np.arange(4)
    lost = before[rows, predicted[:4]][:, None] - logits[rows, :, predicted[:4]]
    np.testing.assert_allclose(batch["part_effects"][:4, 1], lost, atol=1e-4)


def test_a_second_call_reads_what_the_first_one_kept(task, flowers, folder, monkeypatch):
    def unexpected(*args, **options):
        raise AssertionError("was made again")

    monkeypatch.setattr(trained_tasks, "learn_relevance", unexpected)
    monkeypatch.setattr(training, "shuffled_batches", lambda source, size, seed: (unexpected, 3))
    assert len(task.train) // SETTINGS.batch_size == 3  # steps an epoch, as above
    again = flower_task(SETTINGS, images=flowers, directory=folder, mesh=data_mesh(2))
    devices = [leaf.devices() for leaf in jax.tree.leaves(again.variables)]
    assert all(len(found) == 1 for found in devices)  # the checks of a task run on one
    jax.tree.map(np.testing.assert_array_equal, again.variables, task.variables)
    jax.tree.map(np.testing.assert_array_equal, again.relevance, task.relevance)
    with pytest.raises(AssertionError, match="was made again"):  # another mu has other features
        flower_task(dataclasses.replace(SETTINGS, mu=1.0), images=flowers, directory=folder)


def test_random_labels_are_those_of_other_images(task, flowers, folder):
    settings = dataclasses.replace(SETTINGS, has_random_labels=True)
    random = flower_task(settings, images=flowers, directory=folder)
    plain, shuffled = (t.train[np.arange(len(t.train))] for t in (task, random))
    np.testing.assert_array_equal(shuffled["images"], plain["images"])
    assert not np.array_equal(shuffled["labels"], plain["labels"])
    np.testing.assert_array_equal(np.sort(shuffled["labels"]), np.sort(plain["labels"]))
    np.testing.assert_array_equal(random.test[[3]]["labels"], task.test[[3]]["labels"])
    assert not np.array_equal(random.variables["conv1"]["kernel"], task.variables["conv1"]["kernel"])
    assert random.relevance.layout == task.relevance.layout
    assert "part_effects" not in random.test[[0]]


def test_with_a_shortcut_the_truth_is_what_the_network_uses_of_all_but_the_background():
    names, shortcut = part_names("shortcut"), dataclasses.replace(SETTINGS, difficulty="shortcut")
    found = [names[part] for part in flowers_module._truth_parts(shortcut)]
    assert found == ["stem", "leaves", "petals", "disc", "cue"]
    assert flowers_module._truth_parts(SETTINGS) is None


def test_too_few_images_are_named():
    with pytest.raises(ValueError, match=r"num_per_class is 2: leaves \d+ images for training"):
        flower_task(dataclasses.replace(SETTINGS, num_per_class=2))


# ------------------------------------------------------------------------------------------- benchmark


def test_ones_own_method_is_in_the_table_beside_the_others_and_the_controls(result):
    scores = result.scores["single_6c, plain, flower_net"]
    assert set(scores) == {"truth", *OTHERS, CEILING, *CONTROLS}
    for name, values in scores["truth"].values.items():
        np.testing.assert_allclose(values, scores[CEILING].values[name], atol=1e-6, err_msg=name)
    header, _, *rows = str(result).splitlines()
    assert header.split("  ")[0] == "method"
    assert header.rstrip().endswith("sanity checks")
    assert {row.split("  ")[0] for row in rows} == {"truth <", *map(title_of, (*OTHERS, CEILING, *CONTROLS))}
    assert rows[0].startswith(("truth <", CEILING))
    assert rows[1].startswith(("truth <", CEILING))
    names = {title_of(name): name for name in scores}
    areas = [result.mean(names[row.split("  ")[0].removesuffix(" <")], "IoU area") for row in rows]
    assert areas == sorted(areas, reverse=True)
    assert areas[1] > areas[2] + 0.2


def table_rows(result):
    return {row.split("  ")[0].removesuffix(" <"): row for row in result.table().splitlines()[2:]}


def test_the_marks_say_who_is_significantly_above_or_below(result):
    area = result.mean("random_map", "IoU area")
    assert f"{area:.3f}-" in table_rows(result)["random map"]
    below = Benchmark("random_map", result.scores, {})
    above = result.mean("truth", "IoU area")
    assert f"{above:.3f}*" in table_rows(below)["truth"]
    assert f"{area:.3f} " in table_rows(below)["random map"] + " "
    assert "*" not in table_rows(below)["random map"]


def test_a_method_that_does_not_look_at_the_network_fails_the_checks(result):
    rows = table_rows(result)
    assert "survives randomization" in rows["truth"]
    assert "same map for another class" in rows["Sobel edges"]
    assert not rows[CEILING].rstrip().endswith("pass")  # it is no method, and not checked
    (checks,) = result.checks.values()
    assert set(checks.sanity.scores) == set(checks.flipping)
    assert set(map(title_of, checks.flipping)) == set(rows) - {CEILING}


def test_tasks_count_alike_and_equal_names_stay_apart(result, task, looked_up):
    options = {"methods": OTHERS, "has_checks": False, "description": None}
    two = benchmark(looked_up, [task, task], name="truth", **options)
    assert list(two.scores) == [task.name, f"{task.name} (1)"]
    assert two.checks == {}
    assert two.mean("gradient", "best IoU") == pytest.approx(result.mean("gradient", "best IoU"), abs=1e-6)
    assert all(row.endswith(("-", "*")) or row[-1].isdigit() for row in table_rows(two).values())


def test_a_second_network_of_the_same_architecture_compiles_nothing(task):
    traces = []

    def counted(apply, variables, images, targets=None, *, score, key):
        traces.append(1)
        return gradient(apply, variables, images, targets, score=score)

    found = score_task(task, {"counted": counted, "gradient": "gradient"}, has_hindsight=False)
    assert (once := len(traces)) > 0
    np.testing.assert_allclose(
        found["counted"].values["best IoU"], found["gradient"].values["best IoU"], atol=1e-5
    )
    moved = jax.tree.map(lambda v: v[::-1], task.variables)
    weights = dataclasses.replace(task.relevance, weights=np.asarray(task.relevance.weights)[::-1])
    other = dataclasses.replace(task, variables=moved, relevance=weights)
    equal = {"counted": functools.partial(counted), "gradient": functools.partial(gradient)}
    score_task(task, equal, has_hindsight=False)
    once = len(traces)
    equal = {"counted": functools.partial(counted), "gradient": functools.partial(gradient)}
    changed = score_task(other, equal, has_hindsight=False)
    assert len(traces) == once
    assert not np.allclose(changed["counted"].values["best IoU"], found["counted"].values["best IoU"])


@pytest.mark.parametrize("name", ["gradient", "random_map"])
def test_a_name_that_is_taken_is_refused(name, task, looked_up):
    with pytest.raises(ValueError, match=f"name is '{name}', which is another method"):
        benchmark(looked_up, task, name=name, methods=["gradient"], description=None)


def test_what_cannot_be_scored_is_named(task, looked_up):
    def of_colors(apply, variables, images, targets=None, *, score=None, key=None):
        return images.mean((1, 2))

    options = {"methods": ["gradient"], "description": None}
    with pytest.raises(ValueError, match="'mine @ relu_1' has ' @ ', which is before a layer"):
        benchmark(looked_up, task, name="mine @ relu_1", **options)
    with pytest.raises(ValueError, match="methods has 'true mask', which is scored anyhow"):
        benchmark(looked_up, task, name=CEILING, **options)
    with pytest.raises(ValueError, match="tasks is empty: give one"):
        benchmark(looked_up, [], **options)
    with pytest.raises(KeyError, match=r"no method 'gradent'.*did you mean 'gradient'"):
        benchmark(looked_up, task, methods=["gradent"])
    with pytest.raises(ValueError, match=r"methods\['yours'\] returned shape \(10, 3\): expected heatmaps"):
        benchmark(of_colors, task, **options)
    with pytest.raises(TypeError, match=r"method is a str: expected a function \(apply, variables"):
        inspect.unwrap(benchmark)("gradient", task)


def test_the_task_of_a_cue_shows_it_and_no_other_and_folds_share_no_image(tmp_path):
    settings = dataclasses.replace(SETTINGS, variant="texture", difficulty="clutter", epochs=1)
    task = cue_task(settings, directory=tmp_path)
    batch = task.test[np.arange(12)]
    assert task.name == "texture, clutter, flower_net"
    assert (len(task.train), len(task.test), task.relevance.class_names[0]) == (72, 12, "stripes")
    np.testing.assert_array_equal(batch["labels"], batch["textures"])
    assert (batch["shapes"] != batch["labels"]).any()
    assert 0.05 < batch["masks"].mean() < 0.4
    other = cue_task(dataclasses.replace(settings, fold=1, epochs=1), directory=tmp_path)
    assert (np.asarray(other.train[[0]]["images"]) != np.asarray(task.train[[0]]["images"])).any()
    shown = score_task(task, ["gradient"], has_hindsight=False)
    assert set(shown) >= {"gradient", CEILING}
    assert "part-effect correlation" not in shown["gradient"].values
