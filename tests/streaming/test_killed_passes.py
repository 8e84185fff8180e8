"""Passes that were killed at a random point go on, and end with the bytes of passes that were not."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.streaming import passes
from vexplain.streaming import Checkpoint, CheckpointError, data_mesh
from vexplain.streaming.checkpoints import remove_folder

ROOT = Path(__file__).parents[2]


def kill_after(folder: Path, num_reads: int) -> list[str]:
    """The checkpoints that there are after a process was killed, so many reads after its start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.streaming.killed", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for count, _ in enumerate(process.stdout, start=1):
        if count == num_reads:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/[0-9]*"))


@pytest.fixture(scope="module")
def undisturbed():
    return passes.every_pass(data_mesh(1))


def leaves(found):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found) if hasattr(leaf, "dtype")]


def test_passes_that_were_killed_twice_end_as_those_that_were_not(tmp_path, undisturbed):
    rng = random.Random()
    first, then = rng.randint(8, 13), rng.randint(3, 25)  # of 14 reads of a pass; three are ahead of a step
    left = [kill_after(tmp_path, count) for count in (first, then)]
    assert left[0], first
    found = passes.every_pass(data_mesh(1), Checkpoint(tmp_path, every=1))
    for one, other in zip(leaves(found), leaves(undisturbed), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=f"killed after {first} and {then} reads: {left}")


def test_a_pass_refuses_the_checkpoint_of_another_by_name(tmp_path):
    mesh, checkpoint = data_mesh(1), Checkpoint(tmp_path / "it")
    relevance = passes.relevance_of(mesh, checkpoint=checkpoint)
    for options, said in (({"labels": "true"}, "labels predicted"), ({"layers": ["relu_1"]}, "layers ")):
        with pytest.raises(CheckpointError, match=f"made with other settings .'{said}"):
            passes.relevance_of(mesh, checkpoint=checkpoint, **options)
    with pytest.raises(CheckpointError, match="'pass relevance, layers"):
        passes.views_of(relevance, mesh, checkpoint=checkpoint)
    again = passes.relevance_of(mesh, checkpoint=checkpoint)
    np.testing.assert_array_equal(again.weights, relevance.weights)
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_a_folder_is_used_by_one_run(tmp_path):
    from vexplain.streaming.checkpoints import open_saver

    checkpoint = Checkpoint(tmp_path)
    with open_saver(checkpoint), pytest.raises(CheckpointError, match="is used by another run"):
        passes.counts_of(passes.images_of_flowers(), data_mesh(1), checkpoint=checkpoint)
    passes.counts_of(passes.images_of_flowers(), data_mesh(1), checkpoint=checkpoint)


def test_what_an_interrupted_removal_left_is_removed(tmp_path):
    (tmp_path / ".it.removed-1").mkdir()
    (tmp_path / ".item.removed-1").mkdir()
    remove_folder(tmp_path / "it")
    assert [path.name for path in tmp_path.iterdir()] == [".item.removed-1"]


def test_a_resumed_pass_knows_the_broken_files_from_before(tmp_path):
    passes.write_images(tmp_path)
    checkpoint = Checkpoint(tmp_path / "it")
    total = [passes.brightness_of(tmp_path, data_mesh(1), checkpoint=checkpoint) for _ in range(2)]
    assert total[0][0] == total[1][0]
    assert total[0][1].tolist() == total[1][1].tolist() == ["01.png", "09.png"]
