"""One program on several hosts: joins the processes, then runs a module as `python -m` does.

    python -m vexplain.command.hosts experiments.an8flower accelerator
    python -m vexplain.command.hosts vexplain explain --model vgg16 --weights ...

is started once on every host, with the same arguments. Under SLURM and Open MPI, on Kubernetes and on a TPU
slice JAX finds the other processes itself. Elsewhere the environment says who takes part:

    JAX_COORDINATOR_ADDRESS    the host of process 0, with a free port: node1:1234
    JAX_NUM_PROCESSES          how many there are
    JAX_PROCESS_ID             0, 1, ..., another one on every host
"""

import os
import runpy
import sys
import traceback
from collections.abc import Sequence

import jax

_USAGE = "usage: python -m vexplain.command.hosts MODULE [ARGUMENTS ...], once on every host"


def main(arguments: Sequence[str]) -> None:
    """Joins the processes of a job and runs the module that the arguments begin with.

    A process that fails ends at once: the others, which wait for it, are then ended by JAX.

    Args:
        arguments: name of the module, and its arguments.

    Raises:
        SystemExit: no module is named, or a variable of the environment is no number.
    """
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit(_USAGE)
    jax.distributed.initialize(
        num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID")
    )
    sys.argv = list(arguments)
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not end.code:
            return
        _end(end.code)
    except BaseException:
        traceback.print_exc()
        _end(1)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdigit():
        raise SystemExit(f"{name} is {text!r}: expected a number")
    return None if text is None else int(text)


def _end(code: str | int) -> None:
    """Without the goodbye of `jax.distributed`, which waits for the other processes."""
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
