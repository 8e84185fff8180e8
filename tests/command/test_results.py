"""Results in a folder are those of the command line, or are made again; no file name loses them."""

import base64
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.command.runs import COLORS, call, cards_of
from tests.figures.browser import browser, chromium
from vexplain.command import pictures, steps
from vexplain.command.images import Predictions
from vexplain.relevance import load_relevance
from vexplain.streaming.checkpoints import used_alone

ODD = ("小熊猫", "كلب البحر", "<img src=x onerror=alert(1)>\u202e", "never")


@pytest.fixture
def results(explained, tmp_path):
    shutil.copytree(explained, tmp_path / "results")
    return tmp_path / "results"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("report.html", "results.json", "done.json")
    }


def test_weights_in_a_closure_are_a_part_of_what_results_depend_on(images, tmp_path, capsys):
    def run(n):
        options = ["--weights", str(tmp_path / f"w{n}.npy")]
        assert call("features", images, tmp_path / "out", *options, model="in_a_closure") == 0

    for n, bias in enumerate(([0.0, 0, 0, -9], [0.0, -9, 0, 0.02])):
        np.save(tmp_path / f"w{n}.npy", np.array(bias, np.float32))
        run(n)
    assert "taken over" not in capsys.readouterr().out
    notes = json.loads((tmp_path / "out/features.json").read_text())
    assert {image["predicted"] for image in notes["images"]} == {"red", "blue", "never"}
    run(1)
    assert "taken over" in capsys.readouterr().out


def test_files_of_a_killed_run_of_other_settings_are_not_taken_for_ours(results, images, tmp_path):
    """A run with another mu leaves its files, and is killed before the notes that vouch for them."""
    expected, other = contents(results), tmp_path / "other"
    assert call("explain", images, other, "--mu", "0.5", "--num-exemplars", "1") == 0
    for name in contents(other):
        if name.endswith((".npz", ".png")):
            (results / name).write_bytes((other / name).read_bytes())
    assert contents(results) != expected
    assert call("explain", images, results) == 0
    assert contents(results) == expected


def test_notes_that_hold_something_else_are_stale(results, images):
    expected = contents(results)
    for name, notes in (
        ("features.json", "[]"),
        ("interpretation.json", '{"key": null, "sheets": []}'),
        ("done.json", '{"fingerprint": 1}'),
        ("explanations/red/0.png.json", "[]"),
        ("explanations/red/1.png.json", '{"key": null, "digest": {}}'),
    ):
        (results / name).write_text(notes)
    (results / ".features.json.123.part").write_text("half")
    assert call("explain", images, results) == 0
    assert contents(results) == expected


def test_an_image_that_broke_after_the_predictions_is_skipped_and_named(images, tmp_path, monkeypatch):
    root, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(images, root)
    explain_images = steps.explain_images

    def broken_meanwhile(*given):
        (root / "red/0.png").unlink()
        (root / "blue/1.png").write_bytes(b"no image")
        return explain_images(*given)

    monkeypatch.setattr(steps, "explain_images", broken_meanwhile)
    assert call("explain", root, out) == 0
    found = json.loads((out / "results.json").read_text())
    assert set(found["skipped"]) == {"red/broken.jpg", "red/0.png", "blue/1.png"}
    assert not (out / "heatmaps/relevant_features/red/0.png.png").exists()
    assert sorted(i["file"] for i in found["images"] if i["heatmaps"]) == [
        "blue/0.png", "green/0.png", "green/1.png", "red/1.png"
    ]  # fmt: skip
    assert "red/0.png" in (out / "report.html").read_text()


def test_a_folder_of_results_among_the_images_is_refused(images, tmp_path, capsys):
    root = tmp_path / "images"
    shutil.copytree(images, root)
    for out in (root, root / "results"):
        assert call("features", root, out) == 2
        assert "inside of --images" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    for out, message in (
        (tmp_path / "file", "it is a file"),
        (tmp_path / "file/out", "nothing can be written"),
    ):
        assert call("features", root, out) == 2
        assert f"--out is {str(out)!r}: {message}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def oddly_named(images, tmp_path_factory):
    """Results where files have long names and such that are no UTF-8, and classes names of other scripts."""
    root, out = tmp_path_factory.mktemp("odd") / "images", tmp_path_factory.mktemp("out")
    shutil.copytree(images, root)
    for folder, name in zip(COLORS, ODD, strict=False):
        (root / folder).rename(root / name)
    (root / "classes.txt").write_text("\n".join(ODD))
    os.rename(root / ODD[0] / "0.png", root / ODD[0] / ("n" * 246 + ".png"))
    os.rename(root / ODD[2] / "0.png", os.fsencode(root / ODD[2]) + b"/\xff\xfe.png")
    assert call("explain", root, out, "--num-shown", "100") == 0
    return out


def test_names_that_are_long_or_no_utf_8(oddly_named):
    found = json.loads((oddly_named / "results.json").read_text())
    files = {image["file"]: image for image in found["images"]}
    assert rf"{ODD[2]}/\xff\xfe.png" in files
    [cut] = [name for name in files if "~" in name]
    assert cut.startswith(f"{ODD[0]}/nnnn")
    assert all((oddly_named / image["heatmaps"]["relevant_evidence"]).is_file() for image in files.values())
    assert set(found["average_images"]) == set(ODD[:3])


@pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed")
def test_the_report_shows_all_images_and_classes_whatever_their_names(oddly_named):
    pictures = "[...document.querySelectorAll('.card img, #classes img')]"
    with browser() as page:
        page.open(oddly_named / "report.html")
        page.run("document.querySelector('#classes').scrollIntoView({behavior: 'instant'})")
        page.wait_for(f"{pictures}.every((image) => image.complete)")
        assert page.run(f"{pictures}.every((image) => image.naturalWidth > 0)")
        assert page.run("document.querySelectorAll('.card').length") == 6
        names = page.run("[...document.querySelectorAll('.card .class')].map((one) => one.textContent)")
        assert set(names) == set(ODD[:3])
        assert page.run("document.querySelectorAll('#classes .class').length") == 3
        page.run("document.querySelector('.card .features button').click()")
        assert page.run("document.querySelectorAll('dialog .kind.chosen').length") == 1
        assert page.problems == []


def test_two_runs_do_not_use_one_folder_at_once(images, tmp_path, capsys):
    with used_alone(tmp_path):
        assert call("features", images, tmp_path) == 2
    assert "is used by another run" in capsys.readouterr().err


def test_class_names_that_come_twice_are_numbered(images, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(images, root)
    (root / "classes.txt").write_text("crane\ncrane\nblue\nnever\n")
    assert call("features", root, tmp_path / "out") == 0
    assert load_relevance(tmp_path / "out/relevance.npz").class_names == (
        "crane (1)",
        "crane (2)",
        "blue",
        "never",
    )


def test_what_the_report_shows_is_balanced_over_classes_right_and_wrong():
    predicted = np.array([0] * 20 + [1] * 3 + [2])
    truth = predicted.copy()
    truth[15:18], truth[22] = 1, 0
    predictions = Predictions(None, truth, predicted, np.ones(24), {})  # type: ignore[arg-type]
    shown = pictures.spread(predictions, np.arange(24), 8)
    assert shown.tolist() == [0, 20, 23, 15, 22, 1, 21, 16]
    unknown = predictions._replace(truth=np.full(24, -1))
    assert pictures.spread(unknown, np.arange(24), 5).tolist() == [0, 20, 23, 1, 21]


def test_a_heatmap_that_was_changed_is_made_again(results, images):
    expected = contents(results)
    Image.new("L", (16, 16)).save(results / "heatmaps/relevant_evidence/green/1.png.png")
    assert call("explain", images, results) == 0
    assert contents(results) == expected


@pytest.mark.parametrize(("model", "right"), [("one_logit", {"red": "1"}), ("of_gray", None)])
def test_networks_of_one_score_and_of_gray_images(model, right, images, tmp_path):
    out = tmp_path / "out"
    assert call("explain", images, out, "--mu", "3", model=model, classes=False) == 0
    found = json.loads((out / "results.json").read_text())["images"]
    assert {image["predicted"] for image in found} == {"0", "1"}
    assert all(0.5 <= image["probability"] <= 1 for image in found)
    for image in found:  # of one score both sides are explained
        assert np.asarray(Image.open(out / image["heatmaps"]["relevant_evidence"])).max() == 255
    if right is not None:
        predicted = {image["file"]: image["predicted"] for image in found}
        assert all(p == right.get(file.split("/")[0], "0") for file, p in predicted.items())


def test_a_report_to_mail_has_its_pictures_inside(results, images):
    assert call("explain", images, results, "--single-file") == 0
    for card in cards_of(results):
        pictures = [card[4], *card[5], card[6]]
        assert all(picture.startswith("data:image/png;base64,") for picture in pictures)
    name = cards_of(results)[0][0]
    inside = base64.b64decode(cards_of(results)[0][4].split(",")[1])
    assert inside == (results / f"images/{name}.png").read_bytes()
