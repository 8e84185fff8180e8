"""Do image files come as fast as a pass over them goes? Decoding beside plain Pillow, and the pass itself.

    python -m benchmarks.decoding                          JPEG files of 224 × 224 and 500 × 375 px, ResNet-18
    python -m benchmarks.decoding --num-images 64 --no-has-pass

Prints a row a reader: images a second by the clock, and a second of CPU time, which other work on the
machine changes less. "Pillow" opens, makes RGB, resizes, cuts out and divides by 255, one image after the
other; "Grain" is `grain.MapDataset` over the same decoding, in threads or in processes. Every reader gives
the same bytes.

The pass is `learn_relevance` of ResNet-18 with random weights. Each step is waited for, so that the time
until the next batch is there is time that the devices have nothing to do.
"""

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import tyro
from absl import flags
from PIL import Image

from vexplain._text import aligned
from vexplain.classifiers import build
from vexplain.datasets import Resizing, class_folders, decode_image, epoch_batches, threads
from vexplain.relevance import learn_relevance
from vexplain.streaming import loop

SIZES = ((224, 224), (500, 375))  # width and height of the files


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    num_images: int = 256
    batch_size: int = 32
    repetitions: int = 3
    num_workers: int = 2  # processes of Grain
    has_pass: bool = True
    num_images_of_pass: int = 128


def main(config: Config) -> None:
    """Prints the tables."""
    flags.FLAGS(["benchmarks.decoding"])  # which the processes of Grain look at
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), config.num_images, size)
            rows = list(measurements(config, Path(folder)))
            print(
                f"\n{config.num_images} JPEG files of {size[0]} × {size[1]} px, {threads.num_cores()} cores\n"
            )
            print(aligned(["reader", "images/s", "images a CPU second"], rows), flush=True)
    if config.has_pass:
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                write_files(Path(folder), config.num_images_of_pass, size)
                print("\n" + waiting(config, Path(folder), size), flush=True)


def write_files(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Images of soft stains with a little noise, in two folders of classes, as large as photographs are."""
    rng = np.random.default_rng(0)
    for n in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float32)
        pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        path = folder / f"{n % 2}" / f"{n:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def measurements(config: Config, folder: Path) -> Iterator[list[str]]:
    """A row a reader: the best of the repetitions."""
    expected = None
    for name, read in readers(config, folder).items():
        best, found = (np.inf, np.inf), np.zeros(0)
        for _ in range(config.repetitions):
            started, cpu = time.perf_counter(), time.process_time()
            found = read()
            seconds = (time.perf_counter() - started, time.process_time() - cpu)
            best = (min(best[0], seconds[0]), min(best[1], seconds[1]))
        expected = found if expected is None else expected
        assert np.array_equal(found, expected), name
        in_processes = "" if "processes" in name else f"{len(found) / best[1]:.0f}"
        yield [name, f"{len(found) / best[0]:.0f}", in_processes]


def readers(config: Config, folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that read all images, in order."""
    source, resizing = class_folders(folder, size=224), Resizing(224)
    batches, num_steps = epoch_batches(source, config.batch_size)
    paths = [str(file) for file in source.files]

    def ours() -> np.ndarray:
        return np.concatenate([batches(t)["images"] for t in range(num_steps)])[: len(source)]

    def one_thread() -> np.ndarray:
        with replaced(threads, "num_cores", lambda: 1):
            return ours()

    def served(**options: int) -> np.ndarray:
        images = grain.MapDataset.source(paths).map(functools.partial(decode_image, resizing=resizing))
        num_threads, num_workers = options.get("threads", 1), options.get("processes", 0)
        reading = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
        dataset = images.batch(config.batch_size).to_iter_dataset(reading)
        if num_workers:
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
        return np.concatenate([np.array(batch) for batch in dataset])

    return {
        "Pillow": lambda: np.stack([plain(path) for path in paths]),
        "vexplain, one thread": one_thread,
        "vexplain": ours,
        "Grain, threads": lambda: served(threads=threads.num_cores()),
        "Grain, processes": lambda: served(processes=config.num_workers),
    }


def plain(path: str) -> np.ndarray:
    """What a script of one's own would do."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = (224 * n // min(image.size) for n in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) * np.float32(1 / 255)


def waiting(config: Config, folder: Path, size: tuple[int, int]) -> str:
    """One line: how long a pass waits for its batches."""
    network = build("resnet18")
    apply = lambda variables, images: network.apply(variables, images)[:, :2]  # noqa: E731  # of the folders
    source = class_folders(folder, size=224)
    seconds: list[float] = []

    def timed(make: Any, start: int, stop: int) -> Iterator[Any]:
        batches, asked = prefetched(make, start, stop), time.perf_counter()
        for item in batches:
            seconds.append(time.perf_counter() - asked)
            yield item
            asked = time.perf_counter()

    def waited(*arguments: Any) -> Any:
        step = compiled(*arguments)
        return lambda *arguments: jax.block_until_ready(step(*arguments))

    prefetched, compiled, total = loop._prefetched, loop._compiled, np.nan
    options = {"on_empty_class": "leave_out", "batch_size": config.batch_size, "labels": "true"}
    with replaced(loop, "_prefetched", timed), replaced(loop, "_compiled", waited):
        for _ in range(2):  # the first one compiles
            seconds.clear()
            started = time.perf_counter()
            learn_relevance(apply, network.variables, source, **options)
            total = time.perf_counter() - started
    return (
        f"ResNet-18 over {len(source)} files of {size[0]} × {size[1]} px, batches of {config.batch_size}: "
        f"{total:.1f} s, {len(source) / total:.1f} images/s; {sum(seconds):.2f} s of it, "
        f"{sum(seconds) / total:.1%}, the pass waits for a batch, {seconds[0]:.2f} s for the first one"
    )


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for an attribute of a module."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


if __name__ == "__main__":
    main(tyro.cli(Config))
