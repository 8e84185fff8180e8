"""Eight simulated devices and strict settings for every test, set before JAX starts.

Most programs of the tests run once on a few small images and take longer to compile than to run: they are
compiled without the optimizations that take long, unless JAX_DISABLE_MOST_OPTIMIZATIONS=0 asks for what users
run, and kept for both processes and for the next run, beside the kind of processor that they are for.

VEXPLAIN_TEST_PLATFORM=cuda runs them on a GPU instead, with the flags of XLA in VEXPLAIN_TEST_XLA_FLAGS.
"""

import os
from pathlib import Path

from tests.processor import processor

os.environ["JAX_PLATFORMS"] = os.environ.get("VEXPLAIN_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get(
    "VEXPLAIN_TEST_XLA_FLAGS", ""
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".compiled" / processor())
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest


@pytest.fixture
def key():
    return jax.random.key(0)
