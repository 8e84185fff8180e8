"""The command `vexplain`: arguments in, lines and files out; what it does is in `vexplain.command`."""

import logging
import sys

from tqdm import tqdm

from vexplain.command import parse, run


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, and returns the exit status: 0, or 2 after an error that the user can mend."""
    logging.basicConfig(format="vexplain: %(message)s", level=logging.WARNING)
    try:
        run(parse(arguments), say=lambda text: tqdm.write(text, file=sys.stdout))
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        sys.stderr.write(f"vexplain: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
