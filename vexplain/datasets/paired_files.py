"""Two domains of image files that show the same items: the form of every published set for translation.

The label of an image is its item (a garment, a person), the same in both domains, and `pairs` are the true
partners. Training without pairs takes `unpaired`, whose domains have no item in common.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vexplain.datasets.image_files import (
    ImageFiles,
    OnUnreadable,
    Resizing,
    UnreadableImage,
    as_resizing,
    stacked,
    without_broken,
)
from vexplain.datasets.sources import Source, subset
from vexplain.datasets.threads import in_threads
from vexplain.typing import Float, Int


class Domains(NamedTuple):
    """Domains A and B, and the indices in A and in B of all true partners; an image may have several."""

    a: ImageFiles
    b: ImageFiles
    pairs: Int[np.ndarray, "pairs 2"]


class FileOf(NamedTuple):
    """An image file, the item that it shows, and what else has to agree with that of a partner."""

    path: Path
    item: str
    view: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedImageFiles(ImageFiles):
    """A source of image files with a file beside each that says where the object is; it becomes "masks"."""

    mask_files: Sequence[Path] = ()
    mask_labels: tuple[int, ...] = ()  # of the object, in label images; if none, 128 to 255 is inside

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        batch = super()._batch(indices)
        readable = np.flatnonzero(batch["weights"])
        files = [(self.mask_files[index], self.files[index]) for index in indices[readable].tolist()]
        decoded = in_threads(self._mask_or_error, files)
        decoded = without_broken(decoded, [mask for mask, _ in files], self.on_unreadable, self.skipped)
        masks: list[np.ndarray | None] = [None] * len(indices)
        for place, mask in zip(readable, decoded, strict=True):
            masks[place] = mask
        coverage, weights = stacked(masks, (self.resizing.size, self.resizing.size, 1))
        return {**batch, "masks": coverage[..., 0], "weights": weights}

    def _mask_or_error(self, files: tuple[Path, Any]) -> Float[np.ndarray, "size size 1"] | UnreadableImage:
        mask_file, image_file = files
        try:
            with Image.open(mask_file) as mask, Image.open(image_file) as image:
                if mask.size != image.size:
                    raise ValueError(f"it has {mask.size} pixels and {image_file} {image.size}")
                values = np.asarray(mask if self.mask_labels else mask.convert("L"))
        except Exception as error:  # broken files raise nearly anything in Pillow
            return UnreadableImage(f"{mask_file} cannot be read as a mask: {error}")
        if values.ndim != 2:
            return UnreadableImage(
                f"{mask_file} cannot be read as a mask: it has {values.shape[2]} channels; expected one"
            )
        is_inside = np.isin(values, self.mask_labels) if self.mask_labels else values >= 128
        resized = self.resizing(Image.fromarray((is_inside * 255).astype(np.uint8)))
        return np.asarray(resized, np.float32)[..., None] * np.float32(1 / 255)


def unpaired(domains: Domains, *, seed: int = 0) -> tuple[Source, Source]:
    """Returns domains A and B without partners: of items that are in both, A keeps half and B the others.

    Args:
        domains: of a reader of this library.
        seed: which half.

    Raises:
        ValueError: a domain would be empty.

    Example:
        >>> source_a, source_b = unpaired(viton_folders("viton_resize", size=64))  # doctest: +SKIP
        >>> batches, num_steps = unpaired_batches(source_a, source_b, 16, seed=0)  # doctest: +SKIP
    """
    in_both = np.intersect1d(domains.a.classes, domains.b.classes)
    order = np.random.default_rng(seed).permutation(in_both)
    given_to_a, given_to_b = np.split(order, [(len(order) + 1) // 2])
    kept = [
        np.flatnonzero(~np.isin(source.classes, others))
        for source, others in ((domains.a, given_to_b), (domains.b, given_to_a))
    ]
    for name, chosen in zip("AB", kept, strict=True):
        if not len(chosen):
            raise ValueError(
                f"domains: they have {len(in_both)} items in common and domain {name} no other: expected two "
                "or more, to give each a half"
            )
    return subset(domains.a, kept[0]), subset(domains.b, kept[1])


def read_pairs(domains: Domains, *, num_pairs: int | None = None) -> dict[str, np.ndarray]:
    """Returns true partners in memory: "images_a" and "images_b", row by row, and masks where there are some.

    Pairs with a broken file are left out; the sources name it.

    Args:
        domains: of a reader of this library.
        num_pairs: the first of them only.

    Raises:
        ValueError: there is no pair, or none of which both files can be read.

    Example:
        >>> domains = viton_folders("viton_resize", split="test", size=64)  # doctest: +SKIP
        >>> sorted(read_pairs(domains, num_pairs=500))  # doctest: +SKIP
        ['images_a', 'images_b', 'masks_a', 'masks_b']
    """
    chosen = domains.pairs[:num_pairs]
    if not len(chosen):
        raise ValueError(
            f"domains: {len(domains.pairs)} pairs and num_pairs {num_pairs}: expected at least one"
        )
    batches = [source[column] for source, column in zip(domains[:2], chosen.T, strict=True)]
    is_read = np.minimum(*(batch["weights"] for batch in batches)) > 0
    if not is_read.any():
        broken = next(iter((domains.a.skipped | domains.b.skipped).values()))
        raise ValueError(f"domains: none of {len(chosen)} pairs can be read; {broken}")
    return {
        f"{name}_{d}": batch[name][is_read]
        for d, batch in zip("ab", batches, strict=True)
        for name in ("images", "masks")
        if name in batch
    }


def domains_of(
    files_a: Sequence[FileOf],
    files_b: Sequence[FileOf],
    *,
    size: int | Resizing,
    on_unreadable: OnUnreadable,
    pairs: Sequence[tuple[int, int]] | None = None,
    masks: tuple[dict[str, Any], dict[str, Any]] = ({}, {}),
) -> Domains:
    """Returns two domains of files.

    Args:
        files_a: those of A.
        files_b: those of B.
        size: as in the module `image_files`.
        on_unreadable: as in the module `image_files`.
        pairs: indices of true partners; if left out, all that agree in item and view.
        masks: `mask_files` and `mask_labels` of A and of B, where there are some.
    """
    names = tuple(sorted({file.item for file in (*files_a, *files_b)}))
    place_of = {name: place for place, name in enumerate(names)}
    sources = []
    for files, known in zip((files_a, files_b), masks, strict=True):
        kind = MaskedImageFiles if known else ImageFiles
        labels = np.array([place_of[file.item] for file in files], np.int32)
        paths = tuple(file.path for file in files)
        sources.append(kind(paths, labels, names, as_resizing(size), on_unreadable, **known))
    if pairs is None:
        partners: dict[tuple[str, str], list[int]] = {}
        for place, file in enumerate(files_b):
            partners.setdefault((file.item, file.view), []).append(place)
        pairs = [(n, m) for n, f in enumerate(files_a) for m in partners.get((f.item, f.view), ())]
    return Domains(sources[0], sources[1], np.array(pairs, np.int64).reshape(-1, 2))


def check_exist(files: Sequence[Path], owner: str) -> None:
    """Raises FileNotFoundError naming the first of the files that `owner` lists and that are not there."""
    if missing := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{owner} lists {missing[0]}, which is not there ({len(missing)} of {len(files)} are not): "
            "unpack all archives of the set into this folder"
        )


def list_lines(path: Path, num_fields: int, expected: str, *, num_skipped: int = 0) -> list[list[str]]:
    """Returns the fields of the lines of a list, without empty ones and the first `num_skipped`.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: a line has another number of fields, or there is none; says what is `expected`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: expected the list of the set, lines of {expected}")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [(n, line.split()) for n, line in enumerate(lines, 1) if line.strip() and n > num_skipped]
    if wrong := [(n, fields) for n, fields in rows if len(fields) != num_fields]:
        n, fields = wrong[0]
        raise ValueError(f"{path}, line {n}, has {len(fields)} fields: expected {expected}")
    if not rows:
        raise ValueError(f"{path} is empty: expected lines of {expected}")
    return [fields for _, fields in rows]
