"""The TFDS builder of try-on: what is read is what was rendered, contexts and factors too."""

import numpy as np
import pytest

from vexplain.datasets import from_tfds
from vexplain.datasets.try_on import Factors
from vexplain.datasets.try_on_rendered import TryOnConfig, TryOnRendered

COUNTS = {"num_train": 3, "num_validation": 2, "num_test": 2}


def test_what_is_read_is_what_was_rendered(tmp_path):
    config = TryOnConfig(variant="N", size=8, samples=1, **COUNTS)
    builder = TryOnRendered(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    splits = builder.as_data_source()
    assert sorted(splits) == sorted(f"{name}_{d}" for name in ("train", "validation", "test") for d in "ab")
    for name in splits:
        source = builder.config.source(name[:-2], "ab".index(name[-1]))
        indices = np.resize(np.arange(len(source)), 64)
        batch, factors = source[indices], source.factors(indices)
        for place, record in enumerate(splits[name]):
            for feature, key in (("image", "images"), ("context", "context_images"), ("mask", "masks")):
                np.testing.assert_array_equal(np.squeeze(record[feature]), np.round(batch[key][place] * 255))
            stored = Factors(**record["factors"])
            np.testing.assert_array_equal(stored, [np.asarray(leaf)[place] for leaf in factors])
    pairs = zip(splits["test_a"], splits["test_b"], strict=True)
    assert all(a["factors"] == b["factors"] and a["label"] != b["label"] for a, b in pairs)
    contexts = from_tfds(splits["test_b"], image="context", mask="mask")[[0, 1]]
    assert (contexts["images"][contexts["masks"] > 0] == np.float32(128 / 255)).all()


def test_configs_are_named_by_their_settings():
    assert sorted(TryOnRendered.builder_configs) == ["try_on_F", "try_on_N", "try_on_U"]
    assert TryOnConfig(seed=3, size=32).name == "try_on_U-size_32-seed_3"
    with pytest.raises(ValueError, match="variant is 'Z'"):
        TryOnConfig(variant="Z")
    with pytest.raises(ValueError, match="num_test is 0: expected at least 1"):
        TryOnConfig(num_test=0)
