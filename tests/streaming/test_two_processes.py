"""Two real processes on one machine, and eight devices of one, give what one device gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.streaming import passes
from vexplain.__main__ import main
from vexplain.streaming import data_mesh

ROOT = Path(__file__).parents[2]
EXACTLY = ("counts", "exemplars", "skipped")  # what the names of results begin with


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    passes.write_images(folder)
    return folder


@pytest.fixture(scope="module")
def one(folder):
    return passes.results(folder, data_mesh(1))


@pytest.fixture(scope="module")
def two(folder):
    """The results of both processes, of two devices each; one is told of the other, one is under SLURM."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    port = free_port()
    told = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    slurm = {"JOB_ID": "7", "STEP_NODELIST": "localhost", "NTASKS": "2", "PROCID": "1", "LOCALID": "1"}
    found = {f"SLURM_{name}": value for name, value in slurm.items()} | {"JAX_COORDINATOR_PORT": f"{port}"}
    run = [sys.executable, "-m", "vexplain.command.hosts", "tests.streaming.one_of_two", str(folder)]
    started = [
        subprocess.Popen(
            run,
            cwd=ROOT,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for variables in (told, found)
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    found = [dict(np.load(folder / f"{process}.npz")) for process in range(2)]
    return [values | {"said": text} for values, text in zip(found, said, strict=True)]


def assert_equal(found, expected):
    assert set(found) >= set(expected)
    for name, values in expected.items():
        if name.startswith(EXACTLY):
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        elif name != "read":
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_one_device_counts_every_image_once(one):
    assert one["counts"].tolist() == one["counts of the default mesh"].tolist() == [15, 15, 15]
    assert one["skipped"].tolist() == ["01.png", "09.png"]
    assert len({tuple(one[f"exemplars {n}"]) for n in range(3)}) == 3


def test_eight_devices_give_what_one_device_gives(one, folder):
    assert_equal(passes.results(folder, data_mesh(8)), one)


@pytest.mark.parametrize("process", range(2))
def test_two_processes_give_what_one_device_gives(one, two, process):
    assert_equal(two[process], one)


def test_each_process_reads_its_share(two):
    first, second = (found["read"] for found in two)
    assert (first + second)[1:].tolist() == [1] * (passes.NUM_IMAGES - 1)
    padding = -passes.NUM_IMAGES % passes.BATCH  # is the first image again
    assert (first + second)[0] == 1 + padding
    assert abs(int(first[1:].sum()) - int(second[1:].sum())) <= passes.BATCH // 2


def test_two_processes_resume_from_one_checkpoint(two):
    for found in two:
        assert found["asked"].tolist() == [2, 3, 4]
        assert found["total"] == 28 * (1 + 2 + 3 + 4 + 5)
        assert found["left"].tolist() == ["4", "5"]
        assert found["is removed"]
        np.testing.assert_array_equal(found["key"], two[0]["key"])


def test_one_process_writes_the_results_of_the_command(two, folder):
    of_one, of_two = folder / "of one", folder / "of two"
    assert main(["features", *passes.command_line(folder, of_one)[1:-2]]) == 0
    one, other = (json.loads((out / "features.json").read_text()) for out in (of_one, of_two))
    for name, features in one.pop("features").items():
        for found, expected in zip(other["features"][name], features, strict=True):
            assert found == expected | {"weight": pytest.approx(expected["weight"], rel=1e-5)}
    other.pop("features")
    for notes in (one, other):
        del notes["relevance"]  # the digest of a file that differs by rounding
    assert one == other
    assert one["skipped"] == {"3.png": "cannot be read as an image: no known format"}
    files = {path.relative_to(of_two).as_posix() for path in of_two.rglob("*") if path.is_file()}
    first, second = (set(found["written"].tolist()) for found in two)
    assert first | second == files
    assert not first & second
    assert {f"heatmaps/relevant_features/{n}.png.png" for n in range(3)} < files
    assert {Path(name).parts[0] for name in second} == {"heatmaps", "explanations", "images"}
    assert "the report is" in two[0]["said"]
    assert "Predictions" not in two[1]["said"]


def test_a_mesh_has_as_many_devices_of_each_process(two):
    for found in two:
        assert found["devices"].tolist() == [0, 1]
        shared, foreign, uneven = found["errors"].tolist()
        assert "num_devices is 3: expected a multiple of the 2 processes, each of which has 2" in shared
        assert "none of its 2 devices belongs to process" in foreign
        assert "the batch has 6 examples, which 4 devices cannot share evenly" in uneven
