"""Records of TFDS as a source: any image classification set that TFDS can read at random.

`builder.as_data_source(split=...)` gives one record for an index. Here the records of one or several such
splits become batches, with images and masks in [0, 1] and of one size. TFDS itself is not imported.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vexplain._checks import check_choice
from vexplain.datasets._classes import Classes, chosen_classes, examples_of_classes
from vexplain.datasets.image_files import (
    OnUnreadable,
    Resizing,
    UnreadableImage,
    decode_or_error,
    stacked,
    without_broken,
)
from vexplain.datasets.sources import LazySource, Source
from vexplain.datasets.threads import in_threads
from vexplain.typing import Float

_SCALES = {"bool": 1, "uint8": 255, "uint16": 65535}
_BATCH = 64  # records read at once to find their classes


def from_tfds(
    data_sources: Any,
    *,
    class_names: Sequence[str] | None = None,
    classes: Classes | None = None,
    image: str = "image",
    label: str = "label",
    mask: str | None = None,
    size: tuple[int, int] | Resizing | None = None,
    on_unreadable: OnUnreadable = "skip",
) -> Source:
    """Returns the source of the records of `builder.as_data_source(split=...)`.

    Whatever has a length and gives mappings of NumPy arrays will do, a `grain.MapDataset` too; and
    `grain.MapDataset.source(from_tfds(...))` goes on in Grain.

    Args:
        data_sources: one data source, or a list of them, read one after the other.
        class_names: one a class; if left out, those that the data source knows.
        classes: names of the classes to keep, in the order of their new labels; a mapping gives each a new
            name. Every record is read once to find them, which is quick where images are not decoded:
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
        on_unreadable: what to do about bytes that are no image, as in the module `image_files`.

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
    check_choice("on_unreadable", on_unreadable, ("skip", "raise"))
    ends = np.cumsum([len(part) for part in parts])
    if not len(ends) or not ends[-1]:
        raise ValueError("data_sources: they hold no record")
    first = next(part[0] for part in parts if len(part))
    _check_fields(first, image=image, label=label, mask=mask)
    names = tuple(class_names if class_names is not None else _feature(parts[0], label, "names") or ())
    if not names:
        raise ValueError(
            f"class_names: this data source does not name the classes of {label!r}; pass class_names="
        )
    where = f"field {image!r} of record 0"
    if isinstance(first[image], bytes):
        shape = (_encoded(size, where).size,) * 2 + (3,)
    else:
        shape = _pixels(first[image], size, where).shape
        promised = _feature(parts[0], image, "shape") or ()
        shape = (*shape[:2], (promised[-1] if len(promised) == 3 else None) or shape[2])
    everything = np.arange(ends[-1]), np.arange(len(names))
    source = _TfdsSource(parts, ends, names, image, label, mask, size, shape, *everything, on_unreadable)
    return source if classes is None else _of_classes(source, classes)


@dataclasses.dataclass(frozen=True, eq=False)
class _TfdsSource(LazySource):
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

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        positions = self.chosen[indices]
        records = self.records(positions)
        images, weights = self._stacked(self.image, records, self.shape)
        batch = {"images": images, "labels": self.labels[self.record_labels(records)].astype(np.int32)}
        if isinstance(self.size, Resizing):
            batch["weights"] = weights
        if self.mask is not None:
            batch["masks"] = self._stacked(self.mask, records, (*self.shape[:2], 1))[0][..., 0]
        return batch

    def records(self, positions: np.ndarray) -> list[tuple[int, Mapping[str, Any]]]:
        """The records at these positions of all parts, in one call to each part that can."""
        records: list[Any] = [None] * len(positions)
        owners = np.searchsorted(self.ends, positions, side="right")
        for owner in np.unique(owners).tolist():
            part, places = self.parts[owner], np.flatnonzero(owners == owner)
            keys = (positions[places] - (self.ends[owner] - len(part))).tolist()
            found = part.__getitems__(keys) if hasattr(part, "__getitems__") else [part[key] for key in keys]
            for place, record in zip(places, found, strict=True):
                records[place] = record
        return list(zip(positions.tolist(), records, strict=True))

    def record_labels(self, records: list[tuple[int, Mapping[str, Any]]]) -> np.ndarray:
        """The checked labels that stand in records."""
        for position, record in records:
            value, num_classes = np.asarray(record[self.label]), len(self.labels)
            where = f"field {self.label!r} of record {position} is {value}"
            if value.shape != () or not np.issubdtype(value.dtype, np.integer):
                raise ValueError(f"{where}: expected one integer")
            if not 0 <= value < num_classes:
                raise ValueError(f"{where}: class_names has {num_classes} classes")
        return np.array([record[self.label] for _, record in records], np.int64)

    def _stacked(self, field: str, records, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        fields = [(record[field], f"field {field!r} of record {n}") for n, record in records]
        pixels = in_threads(lambda one: self._pixels(one[0], one[1], shape), fields)
        names = [where for _, where in fields]
        return stacked(without_broken(pixels, names, self.on_unreadable, self.skipped), shape)

    def _pixels(self, values: Any, where: str, shape: tuple[int, ...]) -> np.ndarray | UnreadableImage:
        """The pixels of a field, which are of this shape; the error of a broken image."""
        if isinstance(values, bytes):
            pixels = decode_or_error(_EncodedField(values, where), _encoded(self.size, where))
        else:
            pixels = _pixels(values, self.size, where)
        if isinstance(pixels, UnreadableImage):
            return pixels
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


def _encoded(size: tuple[int, int] | Resizing | None, where: str) -> Resizing:
    if not isinstance(size, Resizing):
        raise ValueError(f"{where} is an encoded image: expected size=Resizing(...) to decode it to")
    return size


def _of_classes(source: _TfdsSource, classes: Classes) -> Source:
    """The examples of some classes, whose labels are their places in `classes`."""
    known = source.class_names
    chosen = chosen_classes(classes, known, owner="the records know no")
    starts = range(0, len(source), _BATCH)
    positions = [np.arange(start, min(start + _BATCH, len(source))) for start in starts]
    found = np.concatenate([source.record_labels(source.records(some)) for some in positions])
    indices, _ = examples_of_classes(found, known, chosen, owner="the records have")
    labels = np.array([list(chosen).index(name) if name in chosen else -1 for name in known])
    return dataclasses.replace(source, class_names=tuple(chosen.values()), chosen=indices, labels=labels)


def _pixels(
    values: Any, size: tuple[int, int] | Resizing | None, where: str
) -> Float[np.ndarray, "height width channels"]:
    """An image or mask of a record in [0, 1] and of the wanted size."""
    values = np.asarray(values)
    values = values[..., None] if values.ndim == 2 else values
    if isinstance(size, Resizing) and values.dtype == np.uint8 and values.ndim == 3:
        return _unit_floats(_by_channel(values, size), where)
    pixels = _unit_floats(values, where)
    if size is None or pixels.shape[:2] == size:
        return pixels
    if isinstance(size, Resizing):
        return np.clip(_by_channel(pixels, size), 0, 1)
    bilinear, (height, width) = Image.Resampling.BILINEAR, size  # of Pillow: antialiased where it shrinks
    return np.clip(_by_channel(pixels, lambda channel: channel.resize((width, height), bilinear)), 0, 1)


def _by_channel(pixels: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    channels = [change(Image.fromarray(channel)) for channel in np.moveaxis(pixels, -1, 0)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _unit_floats(values: np.ndarray, where: str) -> Float[np.ndarray, "height width channels"]:
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


def _check_fields(record: Any, **fields: str | None) -> None:
    if not isinstance(record, Mapping):
        raise TypeError(
            f"data_sources: a record is a {type(record).__name__}, expected a mapping of its fields"
        )
    for name, field in fields.items():
        if field is not None and field not in record:
            raise ValueError(f"{name} is {field!r}: the records have the fields {', '.join(sorted(record))}")


def _feature(part: Any, field: str, attribute: str) -> Any:
    """What a data source of TFDS tells of a field; nothing where it tells nothing, as other sources do."""
    features = getattr(getattr(part, "dataset_info", None), "features", None) or {}
    return getattr(features[field], attribute, None) if field in features else None
