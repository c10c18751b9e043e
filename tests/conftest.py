"""Settings that hold for every test."""

import pytest
from hypothesis import settings

# No deadline for a single example: the first one may compile a kernel, and machines under test are shared.
settings.register_profile("opentrn", deadline=None)
settings.load_profile("opentrn")


@pytest.fixture(autouse=True)
def no_core_left_behind():
    """A test that drives a core by hand does not leave it to the next one."""
    from opentrn.neuroncore import machine

    before = machine.state.core
    yield
    machine.state.core = before
