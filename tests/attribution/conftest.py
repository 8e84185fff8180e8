"""What tests of methods share."""

import contextlib

import jax
import pytest


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
