"""Files written in one piece: a crash leaves the old file or the new one, never a half."""

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Returns the path, after the content has replaced what was there.

    The content goes to a temporary file of the same folder, to the disk, and then takes the name.

    Args:
        path: of the file; its folder is made if it does not exist.
        content: all of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/note.txt", b"done").read_bytes()
        b'done'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Returns the path, after the content has replaced what was there, as JSON made by `plain_json`.

    Args:
        path: of the file; its folder is made if it does not exist.
        content: dicts, sequences, text and numbers.
    """
    return write_whole(path, (json.dumps(plain_json(content), indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file; `None` where there is no file, or one that is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def plain_json(content: Any) -> Any:
    """Returns what a JSON file gives back: NaN and infinities are `None`, what JSON does not know is text.

    Args:
        content: dicts, sequences, text and numbers.

    Example:
        >>> plain_json({"loss": float("nan"), "out": Path("runs"), "sizes": (1, 2)})
        {'loss': None, 'out': 'runs', 'sizes': [1, 2]}
    """
    return json.loads(json.dumps(content, default=str), parse_constant=lambda _: None)
