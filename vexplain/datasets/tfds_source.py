"""Records of TFDS as a source: any image classification set that TFDS can read at random.

`builder.as_data_source(split=...)` gives one record for an index. Here the records of one or several such
splits become batches, with images and masks in [0, 1] and of one size. TFDS itself is not imported: whatever
has a length and gives mappings of NumPy arrays will do, a `grain.MapDataset` too. As every source gives one
example for an integer, `grain.MapDataset.source(from_tfds(...))` goes on in Grain.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from vexplain.datasets.image_files import OnUnreadable, Resizing, check_on_unreadable, decode_or_skip
from vexplain.datasets.sources import Source, check_indices, one_example

_SCALES = {"bool": 1, "uint8": 255, "uint16": 65535}


def from_tfds(
    data_sources: Any,
    *,
    class_names: Sequence[str] | None = None,
    classes: Iterable[str] | Mapping[str, str] | None = None,
    image: str = "image",
    label: str = "label",
    mask: str | None = None,
    size: tuple[int, int] | Resizing | None = None,
    on_unreadable: OnUnreadable = "skip",
) -> Source:
    """Returns the source of the records of `builder.as_data_source(split=...)`.

    Args:
        data_sources: one data source, or a list of them, read one after the other.
        class_names: one a class; if left out, those that the data source knows.
        classes: names of the classes to keep, in the order of their new labels; a mapping gives each a new
            name. Every record is read once to find them, which is quick where images are not decoded: with
            `as_data_source(..., decoders={"image": tfds.decode.SkipDecoding()})`.
        image: the field with the image, (height, width, channels) or (height, width); integers of 8 or 16
            bits are divided by their maximum, floats are in [0, 1]. Gray among colors is made RGB. Or the
            bytes of an image file, which needs a `Resizing`; then batches have "weights".
        label: the field with the class, an integer.
        mask: the field with the true region, (height, width, 1) or (height, width), scaled as images are; it
            becomes "masks".
        size: the `Resizing` that a network wants, which keeps the proportions and cuts the middle out, for 8
            bits in the arithmetic of `decode_image`; or (height, width) to stretch images and masks to,
            bilinear with antialiasing. If left out, all images must have one size.
        on_unreadable: what to do about bytes that are no image: "skip" (weight 0, named in the log and in
            `skipped`) or "raise".

    Raises:
        TypeError: `data_sources` is a dictionary of splits, or a record is not a mapping.
        ValueError: no record, no field of that name, no class names, a class that is not among them or has no
            record; when read, an image of another size or range, or a label without a class.
        UnreadableImage: when read, bytes that are no image, if asked for.

    Example:
        >>> records = [{"image": np.full((4, 4), 255, np.uint8), "label": n} for n in (0, 1, 0)]
        >>> source = from_tfds([records, records[:1]], class_names=("cat", "dog"), size=(2, 3))
        >>> len(source), source[np.array([1, 3])]["images"].shape
        (4, (2, 2, 3, 1))
    """
    parts = tuple(data_sources) if isinstance(data_sources, list | tuple) else (data_sources,)
    if any(isinstance(part, Mapping) for part in parts):
        raise TypeError("data_sources is a mapping: expected the data source of a split, or a list of such")
    if not isinstance(size, Resizing | None) and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size}: expected (height, width), at least 1 each, or a Resizing")
    ends = np.cumsum([len(part) for part in parts])
    if not len(ends) or not ends[-1]:
        raise ValueError("data_sources: they hold no record")
    first = next(part[0] for part in parts if len(part))
    _check_fields(first, image=image, label=label, mask=mask)
    names = tuple(class_names) if class_names is not None else _known_names(parts[0], label)
    check_on_unreadable(on_unreadable)
    shape = _shape(first[image], size, f"field {image!r} of record 0", _known_channels(parts[0], image))
    everything = np.arange(ends[-1]), np.arange(len(names))
    source = _TfdsSource(parts, ends, names, image, label, mask, size, shape, *everything, on_unreadable)
    return source if classes is None else _of_classes(source, classes)


@dataclasses.dataclass(frozen=True, eq=False)
class _TfdsSource:
    parts: tuple[Any, ...]
    ends: np.ndarray  # the number of records up to and with each part
    class_names: tuple[str, ...]
    image: str
    label: str
    mask: str | None
    size: tuple[int, int] | Resizing | None
    shape: tuple[int, ...]  # of every image
    chosen: np.ndarray  # the record of each example
    labels: np.ndarray  # the label here of each label of the records
    on_unreadable: OnUnreadable = "skip"
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        if np.ndim(indices) == 0:
            return one_example(self, indices)
        indices = np.asarray(indices, np.int64)
        check_indices(indices, len(self), what="records")
        positions = self.chosen[indices]
        records = list(zip(positions.tolist(), self.records(positions), strict=True))
        images = [self._checked_pixels(record, self.image, n, self.shape) for n, record in records]
        found = np.array([self.label_of(record, position) for position, record in records], np.int64)
        labels = self.labels[found].astype(np.int32)
        batch = {
            "images": _stacked(images, self.shape),
            "labels": labels,
            "indices": indices.astype(np.int32),
        }
        if isinstance(self.size, Resizing):
            batch["weights"] = np.array([image is not None for image in images], np.float32)
        if self.mask is not None:
            shape = (*self.shape[:2], 1)
            masks = [self._checked_pixels(record, self.mask, n, shape) for n, record in records]
            batch["masks"] = _stacked(masks, shape)[..., 0]
        return batch

    def records(self, positions: np.ndarray) -> list[Mapping[str, Any]]:
        """The records at these positions of all parts, in one call to each part that can."""
        records: list[Any] = [None] * len(positions)
        owners = np.searchsorted(self.ends, positions, side="right")
        for owner in np.unique(owners).tolist():
            part, places = self.parts[owner], np.flatnonzero(owners == owner)
            keys = (positions[places] - (self.ends[owner] - len(part))).tolist()
            found = part.__getitems__(keys) if hasattr(part, "__getitems__") else [part[key] for key in keys]
            for place, record in zip(places, found, strict=True):
                records[place] = record
        return records

    def label_of(self, record: Mapping[str, Any], position: int) -> int:
        """The checked label that stands in a record."""
        value, num_classes = np.asarray(record[self.label]), len(self.labels)
        where = f"field {self.label!r} of record {position} is {value}"
        if value.shape != () or not np.issubdtype(value.dtype, np.integer):
            raise ValueError(f"{where}: expected one integer")
        if not 0 <= value < num_classes:
            raise ValueError(f"{where}: class_names has {num_classes} classes")
        return int(value)

    def _checked_pixels(
        self, record: Mapping[str, Any], field: str, position: int, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        """The pixels of a field, which are of this shape; nothing for a broken image that is skipped."""
        where = f"field {field!r} of record {position}"
        if isinstance(record[field], bytes):
            file = _EncodedField(record[field], where)
            pixels = decode_or_skip(file, _encoded(self.size, where), self.on_unreadable, self.skipped)
            if pixels is None:
                return None
        else:
            pixels = _pixels(record[field], self.size, where)
        if pixels.shape[2] == 1 and shape[2] == 3:  # TFDS gives gray photographs so among those in color
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.shape != shape:
            way_out = "pass size=(height, width)" if pixels.shape[2] == shape[2] else "channels must agree"
            raise ValueError(f"{where} has shape {pixels.shape}: expected {shape}; {way_out}")
        return pixels


@dataclasses.dataclass(frozen=True)
class _EncodedField:
    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        return self.content


def _stacked(images: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
    """A batch of images; black where there is none."""
    batch = np.zeros((len(images), *shape), np.float32)
    for place, image in enumerate(images):
        if image is not None:
            batch[place] = image
    return batch


def _shape(
    values: Any, size: tuple[int, int] | Resizing | None, where: str, channels: int | None
) -> tuple[int, ...]:
    """The shape of every image, from the first one and the number of channels that a data source promises."""
    if isinstance(values, bytes):
        return (_encoded(size, where).size,) * 2 + (3,)
    shape = _pixels(values, size, where).shape
    return (*shape[:2], channels or shape[2])


def _encoded(size: tuple[int, int] | Resizing | None, where: str) -> Resizing:
    if not isinstance(size, Resizing):
        raise ValueError(f"{where} is an encoded image: expected size=Resizing(...) to decode it to")
    return size


def _of_classes(source: _TfdsSource, classes: Iterable[str] | Mapping[str, str]) -> Source:
    """The examples of some classes, whose labels are their places in `classes`."""
    renamed = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
    absent = [name for name in renamed if name not in source.class_names]
    if absent or not renamed:
        raise ValueError(f"classes: the records know no {', '.join(absent) or 'empty list of classes'}")
    labels = np.full(len(source.class_names), -1)
    labels[[source.class_names.index(name) for name in renamed]] = np.arange(len(renamed))
    found = np.empty(len(source), np.int64)
    for start in range(0, len(source), 64):
        positions = np.arange(start, min(start + 64, len(source)))
        records = zip(positions.tolist(), source.records(positions), strict=True)
        found[positions] = [source.label_of(record, position) for position, record in records]
    chosen = np.flatnonzero(labels[found] >= 0)
    counts = np.bincount(labels[found[chosen]], minlength=len(renamed))
    if not counts.all():
        empty = [name for name, count in zip(renamed, counts, strict=True) if not count]
        raise ValueError(f"classes: there is no record of {', '.join(empty)}")
    names = tuple(renamed.values())
    return dataclasses.replace(source, class_names=names, chosen=chosen, labels=labels)


def _pixels(
    values: Any, size: tuple[int, int] | Resizing | None, where: str
) -> Float[np.ndarray, "height width channels"]:
    """An image or mask of a record in [0, 1] and of the wanted size."""
    values = np.asarray(values)
    if isinstance(size, Resizing) and values.dtype == np.uint8 and values.ndim in (2, 3):
        values = _by_channel(values if values.ndim == 3 else values[..., None], size)
        return _unit_floats(values, where)
    pixels = _unit_floats(values, where)
    if isinstance(size, Resizing):
        return np.clip(_by_channel(pixels, size), 0, 1)
    return _stretched(pixels, size)


def _by_channel(pixels: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    channels = [change(Image.fromarray(channel)) for channel in np.moveaxis(pixels, -1, 0)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


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


def _stretched(
    pixels: np.ndarray, size: tuple[int, int] | None
) -> Float[np.ndarray, "height width channels"]:
    if size is None or pixels.shape[:2] == tuple(size):
        return pixels
    bilinear = Image.Resampling.BILINEAR  # of Pillow: antialiased where it shrinks
    return np.clip(_by_channel(pixels, lambda image: image.resize((size[1], size[0]), bilinear)), 0, 1)


def _check_fields(record: Any, **fields: str | None) -> None:
    if not isinstance(record, Mapping):
        raise TypeError(
            f"data_sources: a record is a {type(record).__name__}, expected a mapping of its fields"
        )
    for name, field in fields.items():
        if field is not None and field not in record:
            raise ValueError(f"{name} is {field!r}: the records have the fields {', '.join(sorted(record))}")


def _known_channels(part: Any, image: str) -> int | None:
    features = getattr(getattr(part, "dataset_info", None), "features", None) or {}
    shape = getattr(features[image], "shape", None) if image in features else None
    return shape[-1] if shape is not None and len(shape) == 3 else None


def _known_names(part: Any, label: str) -> tuple[str, ...]:
    features = getattr(getattr(part, "dataset_info", None), "features", None) or {}
    names = getattr(features[label], "names", None) if label in features else None
    if not names:
        raise ValueError(
            f"class_names: this data source does not name the classes of {label!r}; pass class_names="
        )
    return tuple(names)
