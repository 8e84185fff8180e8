"""Images of results that vouch for themselves: PNG files with a digest of all that they depend on inside.

Where the digest of the pixels and of the settings is the one in the file, the file is used again: it cannot
be of another run, of another image, damaged or half.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vexplain._files import write_whole

_NAME = "vexplain"  # of the text in a file


def write_sealed(path: Path, pixels: np.ndarray, settings: str) -> None:
    """Writes an image of 8 bits, and what it depends on.

    Args:
        path: ends in .png.
        pixels: (height, width), or (height, width, 3), of uint8.
        settings: all that the pixels depend on.
    """
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text(_NAME, _seal(pixels, settings))
    Image.fromarray(pixels).save(buffer, "png", pnginfo=info)
    write_whole(path, buffer.getvalue())


def is_sealed(path: Path, settings: str) -> bool:
    """Returns whether an image is there, whole, and of these settings."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            pixels = np.asarray(opened)
            return opened.info.get(_NAME) == _seal(pixels, settings)
    except Exception:  # damage shows as any of many kinds in Pillow
        return False


def _seal(pixels: np.ndarray, settings: str) -> str:
    text = f"{settings}\n{pixels.dtype}{pixels.shape}\n"
    return hashlib.sha256(text.encode() + pixels.tobytes()).hexdigest()
