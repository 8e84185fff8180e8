"""Scores of methods on a folder of images with a folder of masks: those of the library, and nothing lost."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import vexplain as vx
from tests.command import networks
from tests.command.runs import call
from vexplain.attribution import positive_heatmaps, probability
from vexplain.command import evaluate
from vexplain.datasets import decode_image
from vexplain.evaluation import border_colors, mask_auc, pixel_flipping, pointing_game
from vexplain.relevance import load_relevance

METHODS = ("gradient", "relevant_evidence")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Of three images a mask; the others have a broken one, one of another shape, and none."""
    root = tmp_path_factory.mktemp("masks")
    for name in ("red", "green", "blue"):
        (root / name).mkdir()
        region = np.zeros((20, 24), np.uint8)
        region[4:14, 0:12] = 255
        Image.fromarray(region).save(root / name / ("0.bmp" if name == "green" else "0.png"))
    (root / "red/1.png").write_bytes(b"no image")
    Image.new("L", (24, 24), 255).save(root / "green/1.png")
    return root


@pytest.fixture(scope="module")
def evaluated(explained, images, masks, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "results"
    shutil.copytree(explained, out)
    line = ["--masks", str(masks), "--num-flipped", "4", "--num-steps", "4", "--method", *METHODS]
    assert call("evaluate", images, out, *line) == 0
    return out, line


def test_scores_are_those_of_the_library(evaluated, images, masks):
    out, _ = evaluated
    found = json.loads((out / "evaluation.json").read_text())
    assert found["num_masked"] == 3
    assert found["num_flipped"] == 4
    apply, variables, resizing = networks.sized(None)
    files = ["blue/0", "green/0", "red/0"]
    pixels = np.stack([decode_image(images / f"{file}.png", resizing) for file in files])
    truth = np.stack([decode_image(next(masks.glob(f"{file}.*")), resizing)[..., 0] for file in files])
    relevance = load_relevance(out / "relevance.npz")
    maps = vx.relevant_evidence(apply, variables, pixels, [2, 1, 0], relevance=relevance)
    scores = found["scores"]["relevant_evidence"]
    for name, function in (("pointing game", pointing_game), ("mask AUC", mask_auc)):
        values = np.asarray(function(maps, truth))
        assert scores[name] == pytest.approx([values.mean(), values.std(ddof=1) / 3**0.5], abs=1e-5)
    assert found["scores"]["true mask"]["mask AUC"][0] == 1
    # deletion: one image of each class, and a second blue one
    pixels = np.concatenate([pixels, decode_image(images / "blue/1.png", resizing)[None]])
    targets = np.array([2, 1, 0, 2])
    maps = positive_heatmaps(vx.gradient(apply, variables, pixels, targets))
    options = {"num_steps": 4, "score": probability, "baseline": border_colors(pixels)}
    curve = pixel_flipping(apply, variables, pixels, targets, maps, key=jax.random.key(0), **options)
    mean = found["scores"]["gradient"]["deletion (border color)"][0]
    if found["signs"].get("gradient") != "absolute value":
        assert mean == pytest.approx(float(curve.area.mean()), abs=2e-4)


def test_masks_that_cannot_be_used_are_named(evaluated):
    out, _ = evaluated
    left_out = json.loads((out / "evaluation.json").read_text())["left_out"]
    assert set(left_out) == {"red/1.png", "green/1.png", "blue/1.png"}
    assert left_out["red/1.png"].startswith("cannot be read as an image")
    assert left_out["green/1.png"] == "has 24 × 24 pixels, and its image 24 × 20: another shape"
    assert left_out["blue/1.png"] == "it has no mask"


def test_the_table_is_printed_and_taken_over(evaluated, images, capsys, monkeypatch):
    out, line = evaluated
    before = (out / "evaluation.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "heatmap_scores", lambda *_: pytest.fail("scored again"))
        patched.setattr(evaluate, "flipping_scores", lambda *_: pytest.fail("flipped again"))
        assert call("evaluate", images, out, *line) == 0
    printed = capsys.readouterr().out
    assert "Scores: taken over" in printed
    assert re.search(r"method +IoU area +best IoU .*insertion \(blurred\)", printed)
    assert re.search(r"relevant evidence \(ours\) +0\.\d{3}", printed)
    assert "Left out: blue/1.png: it has no mask" in printed
    assert (out / "evaluation.json").read_bytes() == before
    rows = (out / "evaluation.md").read_text().splitlines()
    assert sum(row.startswith("| ") for row in rows) == 2 + len(METHODS) + 1
    assert all(row.count("|") == rows[6].count("|") for row in rows if row.startswith("| "))


def test_an_interrupted_evaluation_goes_on_with_the_methods_that_are_left(
    evaluated, images, tmp_path, monkeypatch
):
    whole, line = evaluated
    out, flipped, flip = tmp_path / "results", [], evaluate.flipping_scores
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("evaluation.*"))

    def interrupted(apply, functions, **options):
        if len(flipped) == 1:
            raise KeyboardInterrupt
        flipped.extend(functions)
        return flip(apply, functions, **options)

    monkeypatch.setattr(evaluate, "flipping_scores", interrupted)
    assert call("evaluate", images, out, *line) == 130
    monkeypatch.setattr(evaluate, "flipping_scores", lambda a, f, **o: flipped.extend(f) or flip(a, f, **o))
    assert call("evaluate", images, out, *line) == 0
    assert flipped == list(METHODS)
    for name in ("evaluation.json", "evaluation.md"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_methods_that_a_network_does_not_have_are_left_out_of_all_and_refused_by_name(
    explained, images, tmp_path, capsys, monkeypatch
):
    """Tokens whose places are not known have no class activation map."""
    scored = []
    monkeypatch.setattr(evaluate, "flipping_scores", lambda *given, **_: scored.extend(given[1]) or 1 / 0)
    line = ["--mu", "3", "--num-flipped", "2"]
    assert call("evaluate", images, tmp_path, *line, "--method", "grad_cam", model="of_tokens") == 2
    assert "--method grad_cam: no layer of this network has rows" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        call("evaluate", images, tmp_path, *line, model="of_tokens")
    assert scored == ["relevant_features"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no image in it"),
        (
            {"red/7.png": 255},
            "none of 6 images has a mask there; that of blue/0.png should have the same name",
        ),
        ({"red/0.png": 1}, "none of 1 masks can be used; red/0.png: has no region: its largest value is 1"),
    ],
)
def test_masks_of_which_none_can_be_used(files, message, explained, images, tmp_path, capsys):
    out, root = tmp_path / "results", tmp_path / "masks"
    shutil.copytree(explained, out)
    (root / "red").mkdir(parents=True)
    for name, value in files.items():
        Image.new("L", (24, 20), value).save(root / name)
    line = ["--method", "sobel_edges", "--masks"]
    assert call("evaluate", images, out, *line, str(root)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert call("evaluate", images, out, *line, str(images / "red")) == 2
    assert "inside of --images" in capsys.readouterr().err
