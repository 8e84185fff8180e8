"""Passes that are killed: python -m tests.streaming.killed FOLDER. Says each image that it reads."""

import sys
import time
from pathlib import Path

from tests.streaming import passes
from vexplain.streaming import Checkpoint, data_mesh


class Slow(passes.Counted):
    """Says what it reads, slowly, so that it can be killed at any step."""

    def __getitem__(self, indices):
        time.sleep(0.05)
        print("read", flush=True)
        return self.source[indices]


def main(folder: Path) -> None:
    source = Slow(passes.images_of_flowers())
    passes.images_of_flowers = lambda: source
    passes.every_pass(data_mesh(1), Checkpoint(folder, every=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
