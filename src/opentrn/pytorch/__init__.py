"""PyTorch on the simulated chip: the ``neuron`` device, the ``torch.compile`` backend and what they record.

:func:`enable` makes ``torch.device("neuron")``, ``torch.neuron`` and ``backend="neuron"`` exist. PyTorch calls it by
itself when it is
imported (the ``torch.backends`` entry point), so scripts need no import of ours.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["autoload", "enable", "is_enabled"]

_enabled = False


def is_enabled() -> bool:
    """Whether this process has the simulated device."""
    return _enabled


def enable() -> None:
    """Register the device, the compile backend and the error messages. A second call does nothing.

    Raises:
        UnsupportedError: another package already registered a device of its own (PyTorch has room for one).
    """
    global _enabled
    if _enabled:
        return
    _enabled = True
    from opentrn.pytorch import registration

    try:
        registration.register()
    except BaseException:
        _enabled = False
        raise


def autoload() -> None:
    """What PyTorch calls when it is imported: :func:`enable`, unless AWS's own backend is installed."""
    if find_spec("torch_neuronx") is None:
        enable()
