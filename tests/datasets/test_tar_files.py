"""Files in an archive at random: the bytes that were packed, and an index that is trusted with care."""

import io
import logging
import tarfile

import numpy as np
import pytest

from tests.files.archives import packed
from vexplain.datasets import tar_files
from vexplain.datasets.tar_files import tar_members


def contents(seed, *sizes):
    generator = np.random.default_rng(seed)
    return {f"{size}.bin": generator.bytes(size) for size in sizes}


FLAT = contents(0, 0, 1, 511, 512, 513, 3000)
INNER = {"b.tar": contents(1, 5, 700), "a.tar": contents(2, 512, 20_000, 3)}
NESTED = packed({name: packed(files) for name, files in INNER.items()})


@pytest.fixture
def scans(monkeypatch):
    """Counts how often headers are read."""
    calls, scan = [], tar_files._scan

    def counted(*arguments):
        calls.append(arguments)
        return scan(*arguments)

    monkeypatch.setattr(tar_files, "_scan", counted)
    return calls


def as_dict(members):
    return {member.name: member.read_bytes() for member in members}


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_those_that_were_packed(tmp_path, format_):
    long = {"folder/" * 30 + "häßlich.bin": b"long"}  # more than a header holds
    files = FLAT | (long if format_ != tarfile.USTAR_FORMAT else {})
    (tmp_path / "a.tar").write_bytes(packed(files, format=format_))
    members = tar_members(tmp_path / "a.tar")
    assert as_dict(members) == files
    assert [member.name for member in members] == sorted(files)
    assert str(members[0]) == f"{tmp_path}/a.tar/0.bin"
    assert as_dict(members[2:4]) == {name: files[name] for name in sorted(files)[2:4]}
    assert as_dict(tar_members(tmp_path / "a.tar")) == files  # from the index
    with pytest.raises(IndexError):
        members[len(files)]


def test_files_of_tars_in_a_tar(tmp_path):
    (tmp_path / "a.tar").write_bytes(NESTED)
    expected = {f"{tar[:-4]}/{name}": data for tar, files in INNER.items() for name, data in files.items()}
    members = tar_members(tmp_path / "a.tar", nested=True)
    assert as_dict(members) == expected
    assert [member.name for member in members] == sorted(expected)


def test_folders_links_and_hidden_files_are_passed_over(tmp_path):
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/x.bin").write_bytes(b"x")
    (tmp_path / "tree/inner/._x.bin").write_bytes(b"of macOS")
    (tmp_path / "tree/link").symlink_to("inner/x.bin")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "tree", "./tree")
    assert as_dict(tar_members(tmp_path / "a.tar")) == {"tree/inner/x.bin": b"x"}


def test_headers_are_read_once_and_again_when_the_archive_is_another(tmp_path, scans):
    archive = tmp_path / "a.tar"
    archive.write_bytes(packed(FLAT))
    for _ in range(3):
        tar_members(archive)
    assert len(scans) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "a.tar.index.npz"]
    archive.write_bytes(packed({"new.bin": b"new"}))
    assert as_dict(tar_members(archive)) == {"new.bin": b"new"}
    assert len(scans) == 2
    (tmp_path / "b.tar").write_bytes(NESTED)
    for nested in (False, True, False):  # another question is another index
        names = [member.name for member in tar_members(tmp_path / "b.tar", nested=nested)]
        assert (names == ["a.tar", "b.tar"]) is not nested


@pytest.mark.parametrize("damage", [b"", b"no index", None])
def test_a_broken_index_is_written_again(tmp_path, scans, caplog, damage):
    archive, index = tmp_path / "a.tar", tmp_path / "a.tar.index.npz"
    archive.write_bytes(packed(FLAT))
    tar_members(archive)
    index.write_bytes(index.read_bytes()[:-100] if damage is None else damage)
    assert as_dict(tar_members(archive)) == FLAT
    assert "a.tar.index.npz is broken and will be written again" in caplog.text
    assert as_dict(tar_members(archive)) == FLAT
    assert len(scans) == 2


def test_the_index_can_lie_elsewhere_or_nowhere(tmp_path, scans, caplog):
    archive = tmp_path / "data/a.tar"
    archive.parent.mkdir()
    archive.write_bytes(packed(FLAT))
    for _ in range(2):
        tar_members(archive, index_folder=tmp_path / "cache/tars")
    assert len(scans) == 1
    assert [path.name for path in archive.parent.iterdir()] == ["a.tar"]
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        members = tar_members(archive, index_folder=tmp_path / "file")
    assert as_dict(members) == FLAT
    assert "cannot be written" in caplog.text
    assert "pass index_folder= to keep the index" in caplog.text


def cut_offs(content, starts):
    """In a header, in a file, and exactly between two files, where tar itself sees no error."""
    return [content[: start + extra] for start in starts for extra in (0, 100, 512)]


@pytest.mark.parametrize("nested", [False, True])
def test_an_archive_that_is_cut_off_is_never_taken_for_a_whole_one(tmp_path, nested):
    content = NESTED if nested else packed(FLAT)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        starts = [member.offset for member in tar.getmembers()]
    for broken in [*cut_offs(content, starts), b"no tar" * 100]:
        (tmp_path / "a.tar").write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.tar': it is no tar, or is cut off \(.*download it again"):
            tar_members(tmp_path / "a.tar", nested=nested)
    assert not (tmp_path / "a.tar.index.npz").exists()
    with pytest.raises(FileNotFoundError, match=r"b\.tar': there is no such file"):
        tar_members(tmp_path / "b.tar")


def test_a_size_that_no_disk_has_is_named(tmp_path):
    member = tarfile.TarInfo("a.bin")
    member.size = 2**62
    (tmp_path / "lying.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"lying\.tar'.*is cut off"):
        tar_members(tmp_path / "lying.tar")
