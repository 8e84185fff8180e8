"""The TFDS builder of shape swap: what is read is what was rendered, in pairs, without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from vexplain.datasets import from_tfds, unpaired_batches
from vexplain.datasets.shape_swap import Factors, render_factors
from vexplain.datasets.shape_swap_rendered import ShapeSwapConfig, ShapeSwapRendered

SPLITS = [f"{split}_{name}" for split in ("train", "validation", "test") for name in "ab"]
COUNTS = {"num_train": 70, "num_validation": 3, "num_test": 5}
IN_A_FRESH_PROCESS = """
import sys
from vexplain.datasets import from_tfds
from vexplain.datasets.shape_swap_rendered import ShapeSwapConfig, ShapeSwapRendered
config = ShapeSwapConfig(level=1, num_train=2, num_validation=1, num_test=1, size=8, samples=1)
builder = ShapeSwapRendered(config=config, data_dir=sys.argv[1])
builder.download_and_prepare()
assert len(from_tfds(builder.as_data_source(split="train_b"))[[0, 1]]["images"]) == 2
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    config = ShapeSwapConfig(level=3, variant="N", size=12, samples=2, **COUNTS)
    builder = ShapeSwapRendered(config=config, data_dir=tmp_path_factory.mktemp("tfds"))
    builder.download_and_prepare()
    return builder


def test_what_is_read_is_what_was_rendered(builder):
    splits = builder.as_data_source()
    assert sorted(splits) == sorted(SPLITS)
    for name in SPLITS:
        split, domain = name.split("_")[0], "ab".index(name[-1])
        source = builder.config.source(split, domain)
        records = list(splits[name])
        assert [record["index"] for record in records] == list(range(COUNTS[f"num_{split}"]))
        indices = np.resize(np.arange(len(source)), 64)
        batch, factors = source[indices], source.factors(indices)
        for place, record in enumerate(records[:64]):
            np.testing.assert_array_equal(record["image"], np.round(batch["images"][place] * 255))
            np.testing.assert_array_equal(record["mask"][..., 0], np.round(batch["masks"][place] * 255))
            assert record["label"] == domain
            stored = Factors(**record["factors"])
            np.testing.assert_array_equal(stored, [leaf[place] for leaf in factors])
    assert builder.info.features["label"].names == ["polygon", "star"]
    assert builder.info.metadata["num_train"] == 70


def test_the_test_splits_are_pairs_and_the_others_are_not(builder):
    splits = builder.as_data_source()
    for split in ("train", "validation", "test"):
        pairs = list(zip(splits[f"{split}_a"], splits[f"{split}_b"], strict=True))
        for a, b in pairs:
            assert (a["factors"] == b["factors"]) == (split == "test")
            assert not np.array_equal(a["mask"], b["mask"])
    hues = [float(r["factors"]["hue"]) for name in SPLITS if name != "test_b" for r in splits[name]]
    assert len(set(hues)) == len(hues) == 2 * 73 + 5


def test_factors_of_a_record_render_it_again(builder):
    record = builder.as_data_source(split="test_a")[3]
    image, mask = render_factors(Factors(**record["factors"]), 0, level=3, size=12, samples=2)
    np.testing.assert_allclose(image * 255, record["image"], atol=1)
    np.testing.assert_allclose(mask * 255, record["mask"][..., 0], atol=1)


def test_files_of_two_domains_become_unpaired_batches(builder):
    domains = [from_tfds(builder.as_data_source(split=f"train_{name}"), mask="mask") for name in "ab"]
    batch_fn, steps = unpaired_batches(*domains, 8, seed=0)
    assert steps == 8
    assert batch_fn(3)["b"].shape == (8, 12, 12, 3)


def test_preparing_imports_no_tensorflow(tmp_path):
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_configs_are_named_by_their_settings(tmp_path):
    names = [f"level_{level}_{variant}" for level in range(1, 5) for variant in "FNU"]
    assert sorted(ShapeSwapRendered.builder_configs) == sorted(names)
    assert ShapeSwapRendered(config=ShapeSwapConfig(), data_dir=tmp_path).config.name == "level_4_U"
    assert ShapeSwapRendered(config="level_2_N", data_dir=tmp_path).config.num_test == 2000
    assert ShapeSwapConfig(level=1, seed=3, size=32).name == "level_1_U-size_32-seed_3"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 5}, "level is 5"),
        ({"variant": "Z"}, "variant is 'Z'"),
        ({"num_validation": 0}, "num_validation is 0: expected at least 1"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ShapeSwapConfig(**settings)
