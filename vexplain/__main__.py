"""The command `vexplain`: arguments in, lines and files out; what it does is in `vexplain.command`."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from tqdm import tqdm

from vexplain.command.arguments import parse
from vexplain.command.inputs import check_inputs


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, and returns the exit status: 0, or 2 after an error that the user can mend."""
    try:
        with _warnings_above_the_bar():
            parsed = parse(arguments)
            check_inputs(parsed)
            from vexplain.command.steps import run  # with JAX, which takes seconds to import

            run(parsed, say=lambda text: tqdm.write(text, file=sys.stdout))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return _ended(2, f"error: {error}")
    except RuntimeError as error:  # JAX's own is one
        if type(error).__name__ == "CheckpointError":  # of a module that takes long to import
            return _ended(2, f"error: {error}")
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _ended(
            2, f"error: the device has too little memory: {error}\na smaller --batch-size takes less"
        )
    except KeyboardInterrupt:
        return _ended(130, "interrupted; the same command takes over the steps and heatmaps that are done")
    return 0


def _ended(status: int, why: str) -> int:
    tqdm.write(f"vexplain: {why}", file=sys.stderr)
    return status


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"vexplain: {self.format(record)}", file=sys.stderr)


@contextlib.contextmanager
def _warnings_above_the_bar() -> Iterator[None]:
    """Shows the warnings of the library alone, and none twice: other libraries set up the root logger."""
    logger, handler = logging.getLogger("vexplain"), _AboveTheBar(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


if __name__ == "__main__":
    sys.exit(main())
