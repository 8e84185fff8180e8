"""Every subcommand on a network of five channels and a folder of seven images, one of them broken."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.command.runs import COLORS, HERE, call, cards_of
from vexplain import METHODS
from vexplain.__main__ import main
from vexplain.command import pictures, steps
from vexplain.command.arguments import parse
from vexplain.datasets import ImageFiles
from vexplain.relevance import features, learning, load_relevance


def test_methods_lists_the_catalog(capsys):
    assert main(["methods"]) == 0
    assert capsys.readouterr().out == f"{METHODS}\n"


def test_layers_shows_the_table_and_the_size_of_the_search(tmp_path, capsys):
    assert main(["layers", "--model", f"{HERE}:sized", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "conv_1   conv   8 × 8 × 5  3 × 3 px" in printed
    assert "The search is among 15 features of all layers" in printed
    assert (tmp_path / "layers.txt").read_text() in printed
    rows = json.loads((tmp_path / "layers.json").read_text())
    assert [row["name"] for row in rows] == ["conv_1", "relu_1", "pool_1", "dense_1"]
    assert rows[0]["shape"] == [8, 8, 5]


def test_layers_of_a_published_network_need_no_weights(capsys):
    assert main(["layers", "--model", "alexnet"]) == 0
    printed = capsys.readouterr().out
    assert "relu_7" in printed
    assert re.search(r"19,\d{3} features of all layers: a Gram matrix of 1.\d\d GiB", printed), printed


def test_explain_leaves_everything(explained, images):
    results = json.loads((explained / "results.json").read_text())
    assert results["num_images"] == 6
    assert results["num_skipped"] == 1
    [(file, reason)] = results["skipped"].items()
    assert file == "red/broken.jpg"
    assert reason.startswith("cannot be read as an image")
    assert results["left_out_classes"] == ["never"]
    assert results["accuracy"] == 1.0
    assert [image["predicted"] for image in results["images"]] == [
        Path(image["file"]).parts[0] for image in results["images"]
    ]
    for image in results["images"]:
        assert image["features"]
        heatmap = np.asarray(Image.open(explained / image["heatmaps"]["relevant_features"]))
        assert heatmap.shape == (16, 16)
        assert heatmap.max() == 255
        maps = np.asarray(Image.open(explained / image["feature_maps"]))
        parts = np.split(maps, len(image["features"]), axis=1)
        np.testing.assert_array_equal(np.max(parts, axis=0), heatmap)
        seen = np.asarray(Image.open(explained / image["image"]), float)
        assert seen.shape == (16, 16, 3)
        assert COLORS[image["label"]][seen.mean((0, 1)).argmax()] == 1
    for file in ("report.html", "relevance.npz", "layers.txt"):
        assert (explained / file).stat().st_size > 0
    report = (explained / "report.html").read_text()
    assert all(text in report for text in ("broken.jpg", "never", "conv_1", "red"))
    assert "Shown are 3 of 6." in report
    assert [card[0] for card in cards_of(explained)] == ["blue/0.png", "green/0.png", "red/0.png"]
    assert set(results["average_images"]) == set(COLORS)


def test_the_features_are_those_that_were_planted(explained):
    """Channel c of the network sees color c alone, and the head has nothing else for class c.

    Channels 3 and 4 see all colors a little, which may serve to subtract what the classes share.
    """
    found = load_relevance(explained / "relevance.npz")
    for c, name in enumerate(COLORS):
        heaviest, *others = features(found, name)
        assert heaviest.channel == c
        assert {feature.channel for feature in others} <= {c, 3, 4}
    assert features(found, "never") == ()
    written = json.loads((explained / "features.json").read_text())["features"]
    assert written["red"][0]["channel"] == 0


def test_a_heatmap_is_on_the_colored_part(explained, images):
    results = json.loads((explained / "results.json").read_text())
    image = next(image for image in results["images"] if image["file"] == "red/0.png")
    heatmap = np.asarray(Image.open(explained / image["heatmaps"]["relevant_features"]), float)
    assert heatmap[2:11, :9].mean() > 3 * heatmap[12:].mean()


def test_a_second_run_takes_over_what_is_there(explained, images, capsys, monkeypatch):
    before = (explained / "results.json").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(steps, "predict", lambda *_: pytest.fail("the pass over the images was made again"))
        patched.setattr(steps, "interpret", lambda *_: pytest.fail("average images were made again"))
        patched.setattr(steps, "explain_images", lambda *_: pytest.fail("heatmaps were made again"))
        assert call("explain", images, explained) == 0
    printed = capsys.readouterr().out
    assert printed.count("taken over") == 3
    assert (explained / "results.json").read_text() == before


@pytest.mark.parametrize("num_saved", [2, 5])
def test_an_interrupted_run_goes_on(num_saved, explained, images, tmp_path, capsys, monkeypatch):
    """What is there is taken over, by its records, and the rest is made."""
    out, saved, save = tmp_path / "results", [], pictures._save
    shutil.copytree(explained, out, ignore=shutil.ignore_patterns("heatmaps", "explanations", "results.json"))

    def interrupted(*arguments):
        if len(saved) == num_saved:
            raise KeyboardInterrupt
        saved.append(arguments[3])
        return save(*arguments)

    monkeypatch.setattr(pictures, "_save", interrupted)
    assert call("explain", images, out) == 130
    assert "interrupted; the same command takes over" in capsys.readouterr().err
    assert len(list(out.glob("heatmaps/relevant_features/*/*.png"))) == num_saved
    saved_again = []
    monkeypatch.setattr(pictures, "_save", lambda *given: saved_again.append(given[3]) or save(*given))
    assert call("explain", images, out) == 0
    assert set(saved_again) == set(range(6)) - set(saved)
    whole, gone_on = (
        json.loads((folder / "results.json").read_text())["images"] for folder in (explained, out)
    )
    assert [image["features"] for image in gone_on] == [image["features"] for image in whole]
    assert [image["heatmaps"] for image in gone_on] == [image["heatmaps"] for image in whole]


def test_a_run_that_was_interrupted_after_its_passes_reads_no_image_again(
    explained, images, tmp_path, monkeypatch
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(learning, "find_relevance", interrupted)
        assert call("features", images, tmp_path) == 130
    saved = sorted(path.name for path in tmp_path.glob(".unfinished/*/features/*"))
    assert saved == ["predictions", "relevance"]
    (tmp_path / ".unfinished" / "of other settings").mkdir()
    read, batch_of = [], ImageFiles._batch
    monkeypatch.setattr(
        ImageFiles, "_batch", lambda *given: read.extend(given[1].tolist()) or batch_of(*given)
    )
    assert call("features", images, tmp_path) == 0
    assert read == [*range(7), *range(6)]  # once before each pass: up to eight tell a source from others
    assert not (tmp_path / ".unfinished").exists()
    found, whole = (load_relevance(folder / "relevance.npz") for folder in (tmp_path, explained))
    np.testing.assert_array_equal(found.weights, whole.weights)
    notes, before = (json.loads((folder / "features.json").read_text()) for folder in (tmp_path, explained))
    assert notes["skipped"] == before["skipped"] == {"red/broken.jpg": before["skipped"]["red/broken.jpg"]}


def test_heatmaps_of_another_setting_are_made_again(explained, images, tmp_path, monkeypatch):
    out, saved, save = tmp_path / "results", [], pictures._save
    shutil.copytree(explained, out)
    monkeypatch.setattr(pictures, "_save", lambda *given: saved.append(given[3]) or save(*given))
    assert call("explain", images, out, "--num-features", "1") == 0
    assert sorted(saved) == list(range(6))


def test_too_little_memory_names_the_setting(images, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(steps, "predict", fails)
    assert call("features", images, tmp_path) == 2
    assert "a smaller --batch-size takes less" in capsys.readouterr().err


def test_another_setting_is_another_result(explained, images, tmp_path, capsys):
    out = tmp_path / "results"
    shutil.copytree(explained, out)
    assert call("features", images, out, "--mu", "0.5") == 0
    printed = capsys.readouterr()
    assert "taken over" not in printed.out
    assert "passed over: 1 of 7 files" in printed.out
    assert printed.err.count("broken.jpg") == 1, "a broken file is named as it is met, and once"
    assert "vexplain: skipped: " in printed.err
    assert float(load_relevance(out / "relevance.npz").mu) == 0.5


def test_a_flat_folder_and_numbers_for_names(images, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, file in enumerate(sorted(images.glob("*/*.png"))):
        (flat / f"{n}.png").write_bytes(file.read_bytes())
    assert call("interpret", flat, tmp_path / "out", "--num-exemplars", "2", classes=False) == 0
    assert "no folders of classes" in capsys.readouterr().out
    notes = json.loads((tmp_path / "out" / "features.json").read_text())
    assert set(notes["features"]) == {"0", "1", "2"}
    assert len(list((tmp_path / "out" / "average_images").glob("*.png"))) == 3


def test_activation_functions_other_than_relu(images, tmp_path, capsys):
    line = ["--size", "16", "--num-features", "1"]
    assert call("explain", images, tmp_path, *line, model="module") == 2
    assert "--on-uncovered gradient takes" in capsys.readouterr().err
    assert not (tmp_path / "features.json").exists(), "it says so before the pass"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("sized", ["--images", "/nowhere"], "--images is '/nowhere': there is no such folder"),
        ("sized", ["--weights", "/no.npy"], "--weights is '/no.npy': there is no such file"),
        ("sized", ["--classes", "/no.txt"], "--classes is '/no.txt': there is no such file"),
        ("sized", ["--layers", "conv_9"], "no layer 'conv_9'"),
        ("pair", [], "--size is missing: tests.command.networks:pair does not say"),
        ("only_large", ["--size", "4"], "does not run on images of 4 × 4 × 3.*another --size"),
        ("returns_nothing", [], "returned a NoneType: expected an NNX module, a Keras"),
        ("takes_nothing", [], "was called with weights=None .*takes one argument"),
        ("wrong_shape", ["--size", "8"], r"gave \(2, 8, 8, 3\) for 2 images: expected"),
        ("missing", [], "has no function 'missing'; it has:.*pair"),
        ("not_a_function", [], "has no function 'not_a_function'"),
        (
            "wants_weights",
            [],
            r"weights=None \(--weights was left out\): TypeError: .*networks.py, line",
        ),
        ("one_class", ["--size", "16"], "all 6 images are predicted as 'red'"),
        ("not_finite", ["--size", "16"], "the scores of 6 images are NaN or infinite"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(model, options, message, images, tmp_path, capsys):
    assert call("features", images, tmp_path, *options, model=model) == 2
    error = capsys.readouterr().err
    assert re.search(message, error, re.S), error


@pytest.mark.parametrize(("option", "value"), [("--mu", "-1"), ("--batch-size", "0"), ("--size", "0")])
def test_numbers_that_make_no_sense_are_refused_at_once(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        call("features", tmp_path, tmp_path, option, value)
    assert ended.value.code == 2
    assert f"{option} is {value}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_such_package.module:load", "no module 'no_such_package.module'"),
        ("resnet51", "expected one of alexnet, .* or package.module:function"),
        ("resnet50", "--weights is missing"),
    ],
)
def test_models_that_do_not_exist(model, message, images, tmp_path, capsys):
    line = ["features", "--model", model, "--images", str(images), "--out", str(tmp_path)]
    assert main(line) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "line", [["--help"], ["layers", "--model", "resnet51"], ["layers", "--model", "nowhere:load"]]
)
def test_help_and_early_errors_import_nothing_slow(line):
    """What takes seconds to import is imported when it is needed."""
    code = (
        "import runpy, sys\n"
        "try:\n"
        f"    sys.argv = ['vexplain', *{line}]\n"
        "    runpy.run_module('vexplain', run_name='__main__')\n"
        "except SystemExit:\n"
        "    print('imported:', sorted({'jax', 'flax', 'matplotlib'} & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "imported: []" in ended.stdout, ended.stdout + ended.stderr
    assert "usage: vexplain" in ended.stdout or "error: --model" in ended.stderr


@pytest.mark.parametrize("command", ["layers", "features", "interpret", "explain", "evaluate"])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as ended:
        parse([command, "--help"])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"vexplain {command} --model" in printed
    assert "package.module:function" in printed


def test_weights_are_handed_to_the_function(images, tmp_path):
    """With weights that push it up, the fourth class takes images from the others."""
    np.save(tmp_path / "bias.npy", np.array([0.0, -9, 0, 0.02], np.float32))
    options = ["--weights", str(tmp_path / "bias.npy")]
    assert call("features", images, tmp_path / "out", *options) == 0
    notes = json.loads((tmp_path / "out" / "features.json").read_text())
    assert {image["predicted"] for image in notes["images"]} == {"red", "blue", "never"}
    assert notes["left_out"] == ["green"]
