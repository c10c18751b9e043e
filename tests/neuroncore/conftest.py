"""A NeuronCore to issue instructions to, and tiles on it, for every test of this room."""

from types import SimpleNamespace

import numpy as np
import pytest

from opentrn import hardware
from opentrn.neuroncore import machine

CHIPS = {2: "trn1", 3: "trn2", 4: "trn3"}


def _drive(chip):
    core = machine.Core(hardware.chip(chip).core)

    def tile(values=None, dtype="float32", buffer="sbuf", shape=None):
        """A tensor that holds ``values``, or is unwritten when only ``shape`` is given."""
        tensor = core.allocate(tuple(shape if values is None else np.shape(values)), dtype, buffer)
        if values is not None:
            view = tensor.array()  # on chip, a 1-D shape gains a dimension
            view[...] = np.asarray(values).reshape(view.shape)
            tensor.storage.state = 2
        return tensor

    return SimpleNamespace(core=core, tile=tile)


@pytest.fixture
def on_generation():
    """A function that makes NeuronCore-v2, v3 or v4 the current core and returns it with its ``tile`` function."""
    before, settings = machine.state.core, np.seterr(all="ignore")

    def use(generation):
        driver = _drive(CHIPS[generation])
        machine.state.core = driver.core
        return driver

    yield use
    machine.state.core = before
    np.seterr(**settings)


@pytest.fixture
def chip(on_generation):
    """NeuronCore-v4."""
    return on_generation(4)
