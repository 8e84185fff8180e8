"""The experiments without masks, in small: digits end to end, cats and cities from files made here."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from experiments import fashion144k, imagenet_cats, mnist
from experiments.classifier_job import of_first_classes
from experiments.imagenet_data import imagenet_images
from vexplain.classifiers import build
from vexplain.datasets import IMAGENET_CATS, Resizing
from vexplain.relevance import load_relevance, num_features


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("mnist")
    smoke = dataclasses.replace(mnist.PRESETS["smoke"][1], out=out, devices=1)
    return out, mnist.main(smoke)


def test_digits_go_through_the_whole_job(digits):
    out, metrics = digits
    assert not list(out.glob("passes-*"))  # of runs that were interrupted
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert metrics["accuracy"] > 0.5  # after one epoch; chance is 0.1
    assert metrics["num_candidates"] == 20 + 20 + 50 + 50 + 500 + 500  # the paper's for MNIST
    assert len(metrics["ablation"]["random"]) == 2
    assert sum(metrics["ablation"]["num_silenced"].values()) > 0
    assert {name.partition("_")[0] for name in metrics["ablation"]["num_silenced_conv"]} == {"conv"}
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {"weights.png", "explanations.png", "ablation.png", "features-3.png"} <= figures
    assert "Does the network need these features?" in (out / "report.html").read_text()


def test_only_the_classes_that_are_shown_are_looked_at(digits):
    found = load_relevance(digits[0] / "relevance.npz")
    shown = of_first_classes(found, 3)
    assert num_features(shown)[:3].tolist() == num_features(found)[:3].tolist()
    assert not num_features(shown)[3:].any()


def save_images(folder, count, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for n in range(count):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{n}.png")


def test_without_training_images_half_of_the_validation_images_is_fitted_on(tmp_path):
    for n, synset in enumerate(IMAGENET_CATS):
        save_images(tmp_path / "val" / synset, 4, n)
    resizing = Resizing(16)
    train, test = imagenet_images(tmp_path, resizing, num_per_class=1, classes=IMAGENET_CATS)
    assert train.class_names == tuple(IMAGENET_CATS.values())
    assert len(train) == len(test) == 26
    save_images(tmp_path / "train" / "n02123045", 3, 0)
    for synset in list(IMAGENET_CATS)[1:]:
        save_images(tmp_path / "train" / synset, 2, 1)
    train, test = imagenet_images(tmp_path, resizing, num_per_class=2, classes=IMAGENET_CATS)
    assert len(train) == 26
    assert len(test) == 52
    assert train[np.arange(3)]["labels"].tolist() == [0, 0, 1]


def test_images_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected ILSVRC2012_img_train\.tar and .*image-net\.org"):
        imagenet_images(tmp_path, Resizing(16), num_per_class=1)


def test_cats_are_learned_by_a_network_that_comes_with_weights(tmp_path, monkeypatch):
    for n, synset in enumerate(IMAGENET_CATS):
        save_images(tmp_path / "val" / synset, 2, n)
    (tmp_path / "val" / "n02130308" / "0.png").write_bytes(b"no image")

    def small(name, weights, *, num_classes, seed):
        return build(name, num_classes=num_classes, seed=seed, widths=(4, 5, 6, 7, 8), hidden=9)

    monkeypatch.setattr(imagenet_cats, "pretrained", small)
    config = imagenet_cats.Config(out=tmp_path / "out", images=tmp_path, epochs=1, batch_size=13, devices=1)
    metrics = imagenet_cats.main(dataclasses.replace(config, num_exemplars=2, num_draws=1, num_explained=2))
    assert set(metrics["num_features"]) == set(IMAGENET_CATS.values())
    assert [name[-15:] for name in metrics["skipped_files"]] == ["n02130308/0.png"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_cities_are_split_by_a_fixed_draw(tmp_path):
    for n in range(12):
        save_images(tmp_path / f"city{n}", 5, n)
    photographs = fashion144k.class_folders(tmp_path, size=8)
    train, test = fashion144k.split(photographs, 5, seed=1)
    assert (len(train), len(test)) == (48, 12)
    both = np.concatenate([train.chosen, test.chosen])
    assert sorted(both.tolist()) == list(range(60))
    np.testing.assert_array_equal(fashion144k.split(photographs, 5, seed=1)[1].chosen, test.chosen)
