"""CMU Multi-PIE: the same faces seen by two of its cameras, which are two domains.

    session01/multiview/001/01/05_1/001_01_01_051_07.png

are session, subject, recording and camera; the name repeats subject, session, recording and camera, and ends
with the number of the flash, 00 for none. Two images that agree in all but the camera were taken at once.

This rests on the names and folders that public loaders of the set use (bob.db.multipie among them); the data
itself was not at hand. It is licensed by Carnegie Mellon University and not downloaded here.

References:
    Gross, Matthews, Cohn, Kanade, Baker, *Multi-PIE*, Image and Vision Computing 28(5), 2010.
"""

import re
from pathlib import Path

from vexplain.datasets.image_files import OnUnreadable, Resizing
from vexplain.datasets.paired_files import Domains, FileOf, domains_of

_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})\.png")


def multi_pie_views(
    path: str | Path,
    *,
    cameras: tuple[str, str],
    illumination: int | None = 7,
    size: int | Resizing,
    on_unreadable: OnUnreadable = "skip",
) -> Domains:
    """Returns the images of two cameras, A and B; partners were taken at once. The label is the subject.

    Args:
        path: the folder with `session01` and others, or one with a folder `data` that has them.
        cameras: of A and of B, as their folders are named: `("05_1", "19_0")`.
        illumination: number of the flash, 0 to 19; `None` for all.
        size: as in the module `image_files`.
        on_unreadable: as in the module `image_files`.

    Raises:
        FileNotFoundError: there is no such folder, or no session in it.
        ValueError: cameras of another form or twice the same, one of which there is no image, an image in the
            folder of something else, or no two images that were taken at once.

    Example:
        >>> frontal, turned, pairs = multi_pie_views("Multi-Pie/data", cameras=("05_1", "19_0"), size=64)
        ... # doctest: +SKIP
    """
    for camera in cameras:
        if not re.fullmatch(r"\d{2}_\d", camera):
            raise ValueError(f"cameras are {cameras}: expected names of folders such as '05_1'")
    if len(cameras) != 2 or cameras[0] == cameras[1]:
        raise ValueError(f"cameras are {cameras}: expected two different ones")
    if illumination is not None and not 0 <= illumination <= 19:
        raise ValueError(f"illumination is {illumination}: expected 0 to 19, or None for all")
    root = Path(path)
    sessions = sorted(root.glob("session*/multiview")) or sorted(root.glob("data/session*/multiview"))
    if not sessions:
        raise FileNotFoundError(f"path is {str(root)!r}: expected folders such as session01/multiview in it")
    files_a, files_b = (_files_of(sessions, camera, illumination) for camera in cameras)
    for camera, files in zip(cameras, (files_a, files_b), strict=True):
        if not files:
            raise ValueError(
                f"cameras: {root} has no image of {camera} with illumination {illumination}; expected files "
                f"such as session01/multiview/001/01/{camera}/001_01_01_{camera.replace('_', '')}_07.png"
            )
    found = domains_of(files_a, files_b, size=size, on_unreadable=on_unreadable)
    if not len(found.pairs):
        raise ValueError(
            f"cameras: no two images of {cameras[0]} and {cameras[1]} were taken at once in {root}"
        )
    return found


def _files_of(sessions: list[Path], camera: str, illumination: int | None) -> list[FileOf]:
    files = []
    for session in sessions:
        for file in sorted(session.glob(f"*/*/{camera}/*.png")):
            files += _checked(file, session.parent.name, camera)
    return [f for f in files if illumination is None or f.view.endswith(f"_{illumination:02}")]


def _checked(file: Path, session: str, camera: str) -> list[FileOf]:
    """The file, with its subject, and session, recording and flash; other names are passed over."""
    match = _NAME.fullmatch(file.name)
    if match is None:
        return []
    subject, number, recording, view, flash = match.groups()
    *_, folder_of_subject, folder_of_recording, _, _ = file.parts
    told = (subject, f"session{number}", recording, view)
    if told != (folder_of_subject, session, folder_of_recording, camera.replace("_", "")):
        raise ValueError(
            f"{file} is of subject {subject}, session {number}, recording {recording} and camera {view} by "
            "its name, and lies in the folder of another: move it, or unpack the set again"
        )
    return [FileOf(file, subject, f"{number}_{recording}_{flash}")]
