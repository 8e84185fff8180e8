"""Two folders are trained on, and a third is translated: what is broken is named, what stopped goes on."""

import json
import re
import shutil

import numpy as np
import optax
import pytest
from PIL import Image

from vexplain.__main__ import main
from vexplain.command import translate
from vexplain.command.arguments import parse
from vexplain.datasets.shape_swap import ShapeSwapSource
from vexplain.translation import VAES, NetworkSettings


@pytest.fixture(scope="module", autouse=True)
def small_networks():
    """One program, of the autoencoders: the tests of the experiment compile the full model."""
    settings = NetworkSettings(image_size=16, width=4, latent_size=6)
    optimizer = optax.adam(1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translate, "FULL_MODEL", VAES)
        patch.setattr(translate, "_networks", lambda arguments: settings)
        patch.setattr(optax, "adam", lambda *_: optimizer)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for domain, name in enumerate("ab"):
        (root / name).mkdir()
        for n, image in enumerate(ShapeSwapSource(domain, num_images=9, size=16)[np.arange(9)]["images"]):
            Image.fromarray((255 * np.asarray(image)).round().astype(np.uint8)).save(root / name / f"{n}.png")
    shutil.copytree(root / "a", root / "images" / "new")
    for broken in ("b/broken.png", "images/new/7.png"):
        (root / broken).write_bytes(b"no image")
    return root


def line(folders, out, *options):
    given = [part for name in ("a", "b", "images") for part in (f"--{name}", str(folders / name))]
    given += ["--size", "16", "--width", "4", "--batch-size", "4", "--num-vae-steps", "2"]
    return ["translate", *given, "--out", str(out), *options]


@pytest.fixture(scope="module")
def translated(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert main(line(folders, out, "--num-steps", "4")) == 0
    return out


def images(out):
    return {path.name: path.read_bytes() for path in (out / "translations" / "new").iterdir()}


def test_all_images_that_can_be_read_are_translated(translated, capsys):
    notes = json.loads((translated / "translation.json").read_text())
    assert notes["steps"] == 4
    assert set(notes["skipped"]) == {"b: broken.png", "images: new/7.png"}
    assert list(notes["translations"]) == [f"new/{n}.png" for n in (0, 1, 2, 3, 4, 5, 6, 8)]
    for file in notes["translations"].values():
        assert np.asarray(Image.open(translated / file)).shape == (16, 16, 3)
    assert set(notes["kept"]) == {"color", "tilt and size", "middle"}
    assert notes["cycle"]["cycle error"] > 0


def test_a_second_run_takes_over_and_makes_what_is_missing(
    translated, folders, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    shutil.copytree(translated, out)
    shutil.copy(out / "translations/new/0.png.png", out / "translations/new/1.png.png")
    (out / "translations/new/2.png.png").unlink()
    written, write = [], translate.write_sealed
    monkeypatch.setattr(
        translate, "write_sealed", lambda *given: written.append(given[0].name) or write(*given)
    )
    assert main(line(folders, out, "--num-steps", "4")) == 0
    assert written == ["1.png.png", "2.png.png"]
    assert images(out) == images(translated)
    printed = capsys.readouterr().out
    assert "8 of 9 images are translated" in printed
    assert "Left out: b: broken.png: cannot be read as an image" in printed


def test_a_training_that_stopped_goes_on_to_the_same_end(translated, folders, tmp_path):
    assert main(line(folders, tmp_path, "--num-steps", "3")) == 0
    first = images(tmp_path)
    assert first != images(translated)
    assert main(line(folders, tmp_path, "--num-steps", "4")) == 0
    assert images(tmp_path) == images(translated)


def test_what_is_wrong_is_said(translated, folders, tmp_path, capsys):
    assert main(line(folders, translated, "--num-steps", "4", "--seed", "1")) == 2
    assert "was made with other settings" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    for options, message in (
        (["--a", "/nowhere"], "--a is '/nowhere': there is no such folder"),
        (["--b", str(tmp_path / "empty")], "no image in it"),
        (["--out", str(folders / "b" / "out")], "inside of --b"),
        (["--b", str(folders)], "--a is .* inside of --b"),
        (["--batch-size", "10"], "--batch-size is 10: --a has only 9 images that can be read"),
    ):
        assert main([*line(folders, tmp_path / "out"), *options]) == 2
        assert re.search(message, capsys.readouterr().err)
    with pytest.raises(SystemExit):
        parse([*line(folders, tmp_path), "--size", "24"])
    assert "--size is 24: expected a power of 2" in capsys.readouterr().err
