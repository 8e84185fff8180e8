"""A short run of the mutations of every format; `make fuzz` has the long one."""

import pytest

from tests.files.formats import FORMATS
from tests.files.fuzz import damaged, outcome, results

SLOW = ("mat", "checkpoint")  # half a second each


@pytest.mark.parametrize("name", sorted(set(FORMATS)))
def test_the_valid_file_is_read(name, tmp_path):
    FORMATS[name].write(tmp_path)
    assert outcome(FORMATS[name], tmp_path) == "read"


def test_a_mutation_is_a_function_of_its_seed():
    found = [damaged(b"0123456789" * 9, seed) for seed in range(50)]
    assert found == [damaged(b"0123456789" * 9, seed) for seed in range(50)]
    assert len(set(found)) > 40


def test_damaged_files_are_read_or_named():
    jobs = [(name, seed) for name in sorted(FORMATS) for seed in range(7000, 7003 if name in SLOW else 7020)]
    assert {job: ends for job, ends in results(jobs).items() if ends not in ("read", "named")} == {}
