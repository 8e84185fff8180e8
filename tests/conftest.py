"""Eight simulated devices and strict settings for every test, set before JAX starts."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest


@pytest.fixture
def key():
    return jax.random.key(0)
