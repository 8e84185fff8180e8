"""Eight simulated devices and strict settings for every test, set before JAX starts.

Most programs of the tests run once on a few small images and take longer to compile than to run: they are
compiled without the optimizations that take long, unless JAX_DISABLE_MOST_OPTIMIZATIONS=0 asks for what users
run, and kept for both processes and for the next run, beside the kind of processor that they are for: half of
the time goes into thousands of small programs. Without XLA's fusion emitters a training step compiles in half
the time, and with one thread a program two processes do not wait for each other. A flag that XLA does not
know ends the process, so that they are given to the version in which they were tried. So is a change of JAX
itself, which makes a context of MLIR for each program, loads all dialects into it and keeps it as long as the
program: here the programs of a thread share one, which saves a fifth of the time and two thirds of the memory
of a file with hundreds of programs. Python's garbage collection starts less often, as tracing makes many
objects, and does not look at what was imported: an eighth of the time.

VEXPLAIN_TEST_PLATFORM=cuda runs them on a GPU instead, with the flags of XLA in VEXPLAIN_TEST_XLA_FLAGS.
"""

import contextlib
import gc
import importlib.metadata
import os
import threading
from pathlib import Path

from tests.processor import processor

os.environ["JAX_PLATFORMS"] = os.environ.get("VEXPLAIN_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get(
    "VEXPLAIN_TEST_XLA_FLAGS", ""
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and importlib.metadata.version("jaxlib") == "0.10.2":
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".compiled" / processor())
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

_MOST_MAPS = 45_000
# The longest files begin: what is left at the end is shared evenly by the processes.
_FIRST = ("tests/experiments/", "tests/streaming/", "tests/translation/", "tests/test_docs.py")


def _one_context_a_thread():
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir

    make, of_thread = mlir.make_ir_context, threading.local()

    def context():
        if ir.Context.current is not None:  # a program within one that is being lowered stands beside it
            return make()
        if not hasattr(of_thread, "context"):
            of_thread.context = make()
        return of_thread.context

    mlir.make_ir_context = context


if jax.__version__ == "0.10.2":
    _one_context_a_thread()
gc.set_threshold(200_000, 20)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(_FIRST))


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_given_back():
    """Each compiled program maps memory, and Linux ends a process that maps more than 65,530 pieces."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def compilations():
    """A context manager that yields a list with one entry for each program that is compiled within it."""
    listening: list[list[str]] = []

    def listen(event, duration, **options):
        if event == "/jax/core/compile/backend_compile_duration":
            for found in listening:
                found.append(str(options.get("fun_name", event)))

    jax.monitoring.register_event_duration_secs_listener(listen)

    @contextlib.contextmanager
    def counting():
        found: list[str] = []
        listening.append(found)
        try:
            yield found
        finally:
            listening.remove(found)

    return counting
