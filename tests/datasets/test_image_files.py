"""Pixels of image files in every mode that photographs come in, and broken ones in every way."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from vexplain.datasets import Resizing, UnreadableImage, decode_image

WHOLE = Resizing(6)


def encoded(image, kind="PNG", **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def decoded(image, kind="PNG", resizing=WHOLE, **options):
    return np.asarray(decode_image(encoded(image, kind, **options), resizing)) * 255


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def as_torchvision_does(image, shorter_side, size, filter_):
    """`Resize(shorter_side)` and `CenterCrop(size)`, as torchvision.transforms.functional writes them."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = shorter_side, int(shorter_side * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    image = image.resize((new_width, new_height), filter_)
    top = round((new_height - size) / 2.0)
    left = round((new_width - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


# --- resizing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(300, 500), (501, 333), (97, 64), (256, 256), (31, 47), (224, 1001)])
def test_images_are_resized_and_cut_as_torchvision_does(shape, interpolation):
    image = Image.fromarray(noise(*shape, 3))
    expected = as_torchvision_does(image, 256, 224, getattr(Image.Resampling, interpolation.upper()))
    found = Resizing(224, 256, interpolation)(image)
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_no_side_is_off_by_a_rounding_of_floats():
    """The size before the cut is int(shorter * long / short) for every size of photographs."""
    drawn = np.random.default_rng(1).integers(1, 5000, (20_000, 3)).tolist()
    sizes = {}

    class Recorder(Image.Image):
        def __init__(self, *size):
            super().__init__()
            self._size = size

        def resize(self, size, *_):
            sizes[self.size] = size
            return self

        def crop(self, box=None):
            return self

    for width, height, shorter in drawn:
        shorter = min(shorter, 400)
        if max(width, height) > 100 * min(width, height):
            continue
        Resizing(1, shorter)(Recorder(width, height))
        short, long = sorted((width, height))
        assert sorted(sizes[width, height]) == [shorter, int(shorter * long / short)]


@pytest.mark.parametrize(("width", "left"), [(10, 2), (9, 2), (11, 2), (7, 0), (8, 1)])
def test_the_middle_is_cut_by_hand(width, left):
    """(w - 6) / 2 rounded to even: 2, 1.5 -> 2, 2.5 -> 2, 0.5 -> 0, 1."""
    columns = np.tile(np.arange(width, dtype=np.uint8) * 20, (6, 1))
    np.testing.assert_allclose(decoded(columns)[..., 0], columns[:, left : left + 6], atol=1e-4)
    np.testing.assert_allclose(decoded(columns.T)[..., 0], columns.T[left : left + 6], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size is 0: expected at least 1"),
        ({"size": 8, "shorter_side": 7}, "shorter_side is 7: expected at least size, 8"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Resizing(**settings)


def test_a_line_of_pixels_does_not_fill_the_memory():
    with pytest.raises(UnreadableImage, match=r"an image cannot be read.*2 × 60000 pixels: too narrow"):
        decode_image(encoded(np.zeros((60_000, 2), np.uint8)), Resizing(224, 256))


# --- modes --------------------------------------------------------------------------------------------------


# How each of the eight orientations of EXIF is brought upright: of the array, by the standard's table.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photographs_are_turned_upright(orientation, kind):
    pixels = np.kron(noise(3, 5, 3), np.ones((16, 16, 1), np.uint8))  # blocks survive JPEG
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    upright = UPRIGHT[orientation](pixels)
    top, left = ((n - 48) // 2 for n in upright.shape[:2])
    found = decoded(pixels, kind, Resizing(48), exif=exif, **options)
    np.testing.assert_allclose(found, upright[top : top + 48, left : left + 48], atol=6)


def test_gray_of_8_and_16_bits_and_bilevel_become_three_equal_channels():
    gray = noise(6, 6)
    for image in (gray, gray.astype(np.uint16) * 257, Image.fromarray(gray).convert("P")):
        np.testing.assert_allclose(decoded(image), np.repeat(gray[..., None], 3, -1), atol=1e-4)
    np.testing.assert_allclose(decoded(gray.astype(np.uint16) * 257, "TIFF")[..., 1], gray, atol=1e-4)
    np.testing.assert_allclose(decoded(gray > 100)[..., 2], (gray > 100) * 255, atol=1e-4)
    dark = np.full((6, 6), 300, np.uint16)  # 300 / 65535 is 1.17 / 255
    np.testing.assert_allclose(decoded(dark), 1, atol=1e-4)


def test_values_without_a_known_white_are_refused():
    for values in (np.full((6, 6), 0.5, np.float32), np.full((6, 6), 100_000, np.int32)):
        with pytest.raises(UnreadableImage, match=r"values go from .*: expected 8 or 16 bits"):
            decoded(values, "TIFF")


@pytest.mark.parametrize(
    ("ink", "color"),
    [((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))],
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_become_light(ink, color, kind):
    """No ink is white paper, cyan takes the red, black takes all: also in JPEG, where Adobe inverts."""
    found = decoded(Image.new("CMYK", (16, 16), ink), kind)
    np.testing.assert_allclose(found, np.broadcast_to(color, (6, 6, 3)), atol=3)


def test_what_is_transparent_becomes_white():
    color, alpha = noise(6, 6, 3), noise(6, 6, seed=1)
    share = alpha[..., None] / 255
    expected = color * share + 255 * (1 - share)
    np.testing.assert_allclose(decoded(np.dstack([color, alpha])), expected, atol=1)
    gray = Image.merge("LA", [Image.fromarray(color[..., 0]), Image.fromarray(alpha)])
    np.testing.assert_allclose(decoded(gray)[..., 0], expected[..., 0], atol=1)


def test_palettes_with_transparency_become_white_there():
    indices = np.arange(36, dtype=np.uint8).reshape(6, 6) % 3
    image = Image.new("P", (6, 6))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata(indices.ravel().tolist())
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    for kind in ("PNG", "GIF"):
        np.testing.assert_allclose(decoded(image, kind), colors[indices], atol=1e-4)
        white = np.where(indices[..., None] == 1, 255, colors[indices])
        np.testing.assert_allclose(decoded(image, kind, transparency=1), white, atol=1e-4)
    half = np.array([[255, 0, 0], [127, 255, 127], [255, 255, 255]])  # alphas 255, 128, 0
    found = decoded(image, transparency=bytes([255, 128, 0]))
    np.testing.assert_allclose(found, half[indices], atol=1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_allclose(found, np.broadcast_to([255, 0, 0], (6, 6, 3)), atol=1e-4)


def test_paths_and_contents_are_the_same(tmp_path):
    content = encoded(noise(8, 7, 3))
    (tmp_path / "a.png").write_bytes(content)
    expected = decode_image(content, WHOLE)
    for file in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(decode_image(file, WHOLE), expected)
    assert expected.dtype == np.float32
    assert expected.max() <= 1


# --- broken files -------------------------------------------------------------------------------------------


def test_files_that_are_missing_empty_or_no_image_are_named(tmp_path):
    with pytest.raises(UnreadableImage, match=r"none\.png cannot be read as an image: .*No such file"):
        decode_image(tmp_path / "none.png", WHOLE)
    for name, content in {"a.png": b"", "b.jpg": b"no image", "c.png": encoded(noise(9, 9))[:60]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableImage, match=rf"{name} cannot be read as an image: ."):
            decode_image(tmp_path / name, WHOLE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_broken_files_raise_one_error_whatever_is_broken(kind, monkeypatch):
    """Cut off and overwritten at random, a file is an image or UnreadableImage: nothing else, no crash."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # broken sizes would take seconds to fill
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    content = encoded(noise(16, 12, 3), kind, **({} if kind in ("GIF", "BMP") else {"exif": exif}))
    generator = np.random.default_rng(0)
    unreadable = 0
    for trial in range(300):
        broken = bytearray(content)
        for _ in range(generator.integers(1, 8) * (trial % 3)):
            limit = min(len(broken), 120) if trial % 2 else len(broken)
            broken[generator.integers(limit)] = generator.integers(256)
        if trial % 3 == 0:
            broken = broken[: generator.integers(len(broken) - 64)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow tells of odd metadata in files that it reads
                pixels = decode_image(bytes(broken), WHOLE)
        except UnreadableImage:
            unreadable += 1
        else:
            assert pixels.shape == (6, 6, 3)
    assert unreadable >= 50


def test_what_an_image_takes_is_known_before_it_is_decoded(tmp_path):
    """A file of 10 kB of 9000 × 9000 pixels, which would take 300 MB."""
    path = tmp_path / "large.png"
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(UnreadableImage, match=r"large\.png .*it has 9000 × 9000 pixels, above max_pixels"):
        decode_image(str(path), WHOLE)
    assert decode_image(encoded(noise(9, 9)), Resizing(6, max_pixels=81)).shape == (6, 6, 3)
    with pytest.raises(UnreadableImage, match="9 × 9 pixels, above max_pixels = 80"):
        decode_image(encoded(noise(9, 9)), Resizing(6, max_pixels=80))


def test_the_reason_is_the_same_from_run_to_run(tmp_path):
    (tmp_path / "text.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"text\.png cannot be read as an image: no known format$"):
        decode_image(str(tmp_path / "text.png"), WHOLE)
