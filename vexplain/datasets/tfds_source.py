"""Records of TFDS as a source: any image classification set that TFDS can read at random.

`builder.as_data_source(split=...)` gives one record for an index. Here the records of one or several such
splits become batches, with images and masks in [0, 1] and of one size. TFDS itself is not imported: whatever
has a length and gives mappings of NumPy arrays will do.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from vexplain.datasets.sources import Source

_SCALES = {"bool": 1, "uint8": 255, "uint16": 65535}


def from_tfds(
    data_sources: Any,
    *,
    class_names: Sequence[str] | None = None,
    image: str = "image",
    label: str = "label",
    mask: str | None = None,
    size: tuple[int, int] | None = None,
) -> Source:
    """Returns the source of the records of `builder.as_data_source(split=...)`.

    Args:
        data_sources: one data source, or a list of them, read one after the other.
        class_names: one a class; if left out, those that the data source knows.
        image: the field with the image, (height, width, channels) or (height, width); integers of 8 or 16
            bits are divided by their maximum, floats are in [0, 1].
        label: the field with the class, an integer.
        mask: the field with the true region, (height, width, 1) or (height, width), scaled as images are; it
            becomes "masks".
        size: (height, width) to resize images and masks to, bilinear with antialiasing; the proportions are
            not kept. If left out, all images must have one size.

    Raises:
        TypeError: `data_sources` is a dictionary of splits, or a record is not a mapping.
        ValueError: no record, no field of that name, no class names; when read, an image of another size or
            range, or a label without a class.

    Example:
        >>> records = [{"image": np.full((4, 4), 255, np.uint8), "label": n} for n in (0, 1, 0)]
        >>> source = from_tfds([records, records[:1]], class_names=("cat", "dog"), size=(2, 3))
        >>> len(source), source[np.array([1, 3])]["images"].shape
        (4, (2, 2, 3, 1))
    """
    parts = tuple(data_sources) if isinstance(data_sources, list | tuple) else (data_sources,)
    if any(isinstance(part, Mapping) for part in parts):
        raise TypeError("data_sources is a mapping: expected the data source of a split, or a list of such")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size}: expected (height, width), at least 1 each")
    ends = np.cumsum([len(part) for part in parts])
    if not len(ends) or not ends[-1]:
        raise ValueError("data_sources: they hold no record")
    first = next(part[0] for part in parts if len(part))
    _check_fields(first, image=image, label=label, mask=mask)
    names = tuple(class_names) if class_names is not None else _known_names(parts[0], label)
    shape = _resized(_unit_floats(first[image], f"field {image!r} of record 0"), size).shape
    return _TfdsSource(parts, ends, names, image, label, mask, size, shape)


@dataclasses.dataclass(frozen=True, eq=False)
class _TfdsSource:
    parts: tuple[Any, ...]
    ends: np.ndarray  # the number of records up to and with each part
    class_names: tuple[str, ...]
    image: str
    label: str
    mask: str | None
    size: tuple[int, int] | None
    shape: tuple[int, ...]  # of every image

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"indices go from {indices.min()} to {indices.max()}: there are {len(self)} records"
            )
        records = list(zip(indices.tolist(), self._records(indices), strict=True))
        images = np.empty((len(records), *self.shape), np.float32)
        for place, (index, record) in enumerate(records):
            images[place] = self._pixels(record, self.image, index, self.shape)
        labels = np.array([self._class(record, index) for index, record in records], np.int32)
        batch = {"images": images, "labels": labels, "indices": indices.astype(np.int32)}
        if self.mask is not None:
            batch["masks"] = np.empty(images.shape[:3], np.float32)
            for place, (index, record) in enumerate(records):
                batch["masks"][place] = self._pixels(record, self.mask, index, (*self.shape[:2], 1))[..., 0]
        return batch

    def _records(self, indices: np.ndarray) -> list[Mapping[str, Any]]:
        records: list[Any] = [None] * len(indices)
        owners = np.searchsorted(self.ends, indices, side="right")
        for owner in np.unique(owners).tolist():
            part, places = self.parts[owner], np.flatnonzero(owners == owner)
            keys = (indices[places] - (self.ends[owner] - len(part))).tolist()
            found = part.__getitems__(keys) if hasattr(part, "__getitems__") else [part[key] for key in keys]
            for place, record in zip(places, found, strict=True):
                records[place] = record
        return records

    def _pixels(
        self, record: Mapping[str, Any], field: str, index: int, shape: tuple[int, ...]
    ) -> np.ndarray:
        where = f"field {field!r} of record {index}"
        pixels = _resized(_unit_floats(record[field], where), self.size)
        if pixels.shape != shape:
            way_out = "pass size=(height, width)" if pixels.shape[2] == shape[2] else "channels must agree"
            raise ValueError(f"{where} has shape {pixels.shape}: expected {shape}; {way_out}")
        return pixels

    def _class(self, record: Mapping[str, Any], index: int) -> int:
        value, num_classes = np.asarray(record[self.label]), len(self.class_names)
        where = f"field {self.label!r} of record {index} is {value}"
        if value.shape != () or not np.issubdtype(value.dtype, np.integer):
            raise ValueError(f"{where}: expected one integer")
        if not 0 <= value < num_classes:
            raise ValueError(f"{where}: class_names has {num_classes} classes")
        return int(value)


def _unit_floats(values: Any, where: str) -> Float[np.ndarray, "height width channels"]:
    values = np.asarray(values)
    if values.ndim == 2:
        values = values[..., None]
    is_float = np.issubdtype(values.dtype, np.floating)
    if values.ndim != 3 or not (is_float or values.dtype.name in _SCALES):
        raise ValueError(
            f"{where} has shape {values.shape} and dtype {values.dtype}: expected (height, width, channels) "
            "of 8 or 16 bits, or floats in [0, 1]"
        )
    if is_float and values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{where} goes from {values.min():g} to {values.max():g}: expected [0, 1]")
    scale = 1 if is_float else _SCALES[values.dtype.name]
    return values.astype(np.float32) * np.float32(1 / scale)


def _resized(pixels: np.ndarray, size: tuple[int, int] | None) -> Float[np.ndarray, "height width channels"]:
    if size is None or pixels.shape[:2] == tuple(size):
        return pixels
    bilinear = Image.Resampling.BILINEAR  # of Pillow: antialiased where it shrinks
    channels = [
        Image.fromarray(channel).resize((size[1], size[0]), bilinear)
        for channel in np.moveaxis(pixels, -1, 0)
    ]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], axis=-1), 0, 1)


def _check_fields(record: Any, **fields: str | None) -> None:
    if not isinstance(record, Mapping):
        raise TypeError(
            f"data_sources: a record is a {type(record).__name__}, expected a mapping of its fields"
        )
    for name, field in fields.items():
        if field is not None and field not in record:
            raise ValueError(f"{name} is {field!r}: the records have the fields {', '.join(sorted(record))}")


def _known_names(part: Any, label: str) -> tuple[str, ...]:
    features = getattr(getattr(part, "dataset_info", None), "features", None) or {}
    names = getattr(features[label], "names", None) if label in features else None
    if not names:
        raise ValueError(
            f"class_names: this data source does not name the classes of {label!r}; pass class_names="
        )
    return tuple(names)
