"""Methods, scores, layers and devices of a command line; networks of labels, tokens and one score."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import vexplain as vx
from tests.command import networks
from tests.command.runs import HERE, call
from vexplain import METHODS
from vexplain.attribution import normalize_heatmaps, positive_heatmaps
from vexplain.command import methods, steps
from vexplain.command.arguments import parse
from vexplain.command.names import customary_names, method_names
from vexplain.command.pictures import relative_file
from vexplain.datasets import decode_image
from vexplain.relevance import load_relevance
from vexplain.streaming import data_mesh


@pytest.fixture
def out(explained, tmp_path):
    """Results whose features and average images are taken over."""
    shutil.copytree(explained, tmp_path / "results")
    return tmp_path / "results"


def line(images, out, *options, model="sized"):
    given = ["explain", "--model", f"{HERE}:{model}", "--images", str(images), "--out", str(out)]
    given += ["--classes", str(images / "classes.txt"), "--batch-size", "4"]
    return parse([*given, *options])


def saved(images, out, *options, model="sized", num_devices=1):
    """The heatmaps of a command line in files, by method and image, without a report."""
    arguments = line(images, out, *options, model=model)
    opened = steps.open_inputs(arguments, lambda text: None)
    found = steps.find_features(arguments, opened, lambda text: None)
    files = methods.save_heatmaps(arguments, found, opened.methods, data_mesh(num_devices))
    maps = {}
    for place, by_method in files.items():
        for method, file in by_method.items():
            name = relative_file(found, place)
            maps.setdefault(method, {})[name] = np.asarray(Image.open(out / file)).astype(int)
    return maps


def test_names_are_those_of_the_catalog():
    assert method_names() == tuple(METHODS)
    assert customary_names() == METHODS.customary


def test_an_option_that_is_given_twice_has_the_values_of_both():
    line = [
        "explain",
        "--method",
        "gradient",
        "--model",
        "m",
        "--images",
        "i",
        "--method=grad_cam",
        "random_map",
    ]
    assert parse([*line, "--out", "o"]).method == ("gradient", "grad_cam", "random_map")
    assert parse([*line[:1], *line[3:7], "--out", "o"]).method == ("relevant_evidence", "relevant_features")


def test_heatmaps_are_those_of_the_library(out, images):
    """Each by its own call, for one image and the class that is predicted."""
    chosen = ["gradient", "grad_cam", "relevant_evidence", "sobel_edges"]
    maps = saved(images, out, "--method", *chosen, "--layer", "relu_1")
    apply, variables, resizing = networks.sized(None)
    image = decode_image(images / "green/1.png", resizing)[None]
    options = {"grad_cam": {"layer": "relu_1"}}
    options["relevant_evidence"] = {"relevance": load_relevance(out / "relevance.npz")}
    for name in chosen:
        found = vx.attribute(name, apply, variables, image, targets=1, **options.get(name, {}))
        expected = normalize_heatmaps(found) if found.ndim == 3 else positive_heatmaps(found)
        np.testing.assert_allclose(maps[name]["green/1.png"] / 255, expected[0], atol=0.006, err_msg=name)


def test_only_missing_maps_are_made(out, images, monkeypatch):
    made, save = [], methods.save_heatmap
    monkeypatch.setattr(methods, "save_heatmap", lambda *given: made.append(given[2].name) or save(*given))
    saved(images, out, "--method", "relevant_evidence", "random_map")
    assert made == ["random_map"] * 6
    drawn = saved(images, out, "--method", "random_map")
    assert list(drawn) == ["random_map"]
    assert len(made) == 6
    assert not np.array_equal(drawn["random_map"]["red/0.png"], drawn["random_map"]["red/1.png"])
    # a map of another method, or of another image, under the name of this one
    for other, file in (("relevant_evidence", "red/0.png"), ("random_map", "red/1.png")):
        made.clear()
        shutil.copy(out / f"heatmaps/{other}/{file}.png", out / "heatmaps/random_map/red/0.png.png")
        again = saved(images, out, "--method", "random_map")
        assert made == ["random_map"]
        np.testing.assert_array_equal(again["random_map"]["red/0.png"], drawn["random_map"]["red/0.png"])


def test_results_are_of_the_methods_of_this_run(out, images):
    assert call("explain", images, out, "--method", "relevant_evidence", "random_map") == 0
    found = json.loads((out / "results.json").read_text())["images"]
    assert all(list(image["heatmaps"]) == ["relevant_evidence", "random_map"] for image in found)
    assert all((out / file).is_file() for image in found for file in image["heatmaps"].values())


@pytest.mark.parametrize(
    ("score", "value"),
    [("logit", 2), ("margin", 2 - 6.5 / 3), ("against:blue", -3), ("against:2", -3), (f"{HERE}:squared", 4)],
)
def test_scores_are_those_that_are_named(score, value, out, images):
    opened = {}
    for name in ("logit", score):
        arguments = line(images, out, "--method", "gradient", "relevant_evidence", "--score", name)
        opened[name] = steps.open_inputs(arguments, lambda text: None).methods
    gradient, evidence = opened[score]
    outputs = np.array([[1.0, 2.0, 5.0, 0.5], [0, 0, 0, 0]], np.float32)
    assert float(gradient.score(outputs, np.array([1, 0]))[0]) == pytest.approx(value)
    assert (gradient.key == opened["logit"][0].key) == (score == "logit"), "maps of another score are others"
    assert evidence.key == opened["logit"][1].key, "relevant features explain the class itself"
    assert evidence.score is vx.logit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "grad_cm"], "--method is 'grad_cm': did you mean grad_cam"),
        (["--method", "gradient", "gradient"], "--method has 'gradient' more than once"),
        (["--method"], "--method has no name"),
        (["--score", "logits"], "--score is 'logits': expected one of logit, probability, margin"),
        (["--grid", "4", "4"], "--grid is 4 4: expected .* of a layer that --layer names"),
        (["--devices", "0"], "--devices is 0: expected 1 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        call("explain", tmp_path, tmp_path, *options)
    assert ended.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.replace("│", " ").split()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "grad_cam", "--layer", "conv_9"], "--layer: no layer 'conv_9'"),
        (["--layer", "relu_1"], "--layer is 'relu_1': none of .* is a map of a layer"),
        (["--score", "margin"], "--score is 'margin': .* do not explain a score"),
        (
            ["--method", "gradient", "--score", "against:pink"],
            "has no class 'pink'; expected one of red, green",
        ),
        (["--method", "gradient", "--score", "against:4"], "has no class '4'"),
        (["--method", "gradient", "--score", f"{HERE}:none"], "--score .*has no function 'none'"),
        (["--method", "gradient", "--score", f"{HERE}:takes_nothing"], "--score .*failed: TypeError"),
        (["--method", "grad_cam", "--layer", "relu_1", "--grid", "3", "9"], "--grid: grid is .3, 9."),
        (["--devices", "99"], "num_devices is 99"),
    ],
)
def test_options_that_do_not_fit_the_network_are_refused_before_the_pass(
    options, message, images, tmp_path, capsys
):
    assert call("explain", images, tmp_path, *options) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "features.json").exists()


def test_tokens_whose_places_are_not_known_have_a_grid(images, tmp_path, capsys):
    options = ["--method", "grad_cam", "--mu", "3"]
    assert call("explain", images, tmp_path, *options, model="of_tokens") == 2
    assert "--layer and --grid say which tokens have which place" in capsys.readouterr().err
    assert call("explain", images, tmp_path, "--mu", "3", model="of_tokens") == 2
    assert "--method relevant_evidence: apply: no layer of this network has" in capsys.readouterr().err
    assert not (tmp_path / "features.json").exists(), "it is said before the pass"
    options += ["--layer", "relu_1", "--grid", "2", "8"]
    found = np.stack(list(saved(images, tmp_path, *options, model="of_tokens")["grad_cam"].values()))
    across, down = (np.abs(np.diff(found, axis=axis)).mean() for axis in (2, 1))
    assert across > down > 0, "eight tokens beside each other, two above each other"


def test_labels_of_which_an_image_may_have_several(images, tmp_path):
    options = ["--multi-label", "--mu", "3"]
    assert call("features", images, tmp_path, *options, model="multi_label") == 0
    found = json.loads((tmp_path / "features.json").read_text())["images"]
    apply, variables, resizing = networks.multi_label(None)
    names = ("red", "green", "blue", "never")
    for image in found:
        pixels = decode_image(images / image["file"], resizing)[None]
        scores = np.asarray(jax.nn.sigmoid(apply(variables, pixels)))[0]
        assert image["probability"] == pytest.approx(scores.max(), abs=1e-5)
        assert image["predicted"] == names[scores.argmax()]
        assert image["labels"] == [name for name, score in zip(names, scores, strict=True) if score >= 0.5]
    assert {image["labels"][-1] for image in found} == {"never"}
    assert {len(image["labels"]) for image in found} == {2}
    given = (line(images, tmp_path, "--mu", "3", *more, model="multi_label") for more in ([], options))
    one, other = (steps.open_inputs(arguments, lambda text: None).fingerprint for arguments in given)
    assert one != other, "results of classes are not taken for those of labels"
    assert json.loads((tmp_path / "features.json").read_text())["fingerprint"] == other


@pytest.mark.parametrize("options", [[], ["--multi-label"]])
def test_probabilities_are_no_logits(options, images, tmp_path, capsys):
    assert call("features", images, tmp_path, *options, model="probabilities") == 2
    assert "are probabilities: expected logits" in capsys.readouterr().err


def test_devices_share_the_passes(out, images, tmp_path):
    """The same results but for rounding, from seven images in batches that two devices share."""
    shared = tmp_path / "shared"
    assert call("features", images, shared, "--devices", "2", "--batch-size", "3") == 0
    one, two = (load_relevance(folder / "relevance.npz").weights for folder in (out, shared))
    np.testing.assert_allclose(two, one, atol=1e-5)
    expected = saved(images, out)["relevant_evidence"]
    found = saved(images, shared, num_devices=2)["relevant_evidence"]
    assert all(np.abs(found[name] - expected[name]).max() <= 1 for name in expected)
    assert len(found) == 6


def test_what_was_left_out_is_said_at_the_end(out, images, capsys):
    assert call("explain", images, out) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == [
        "Left out: 1 of 7 files, which cannot be read: red/broken.jpg",
        "Left out: 1 of 4 classes, which no image is predicted as: never",
    ]
