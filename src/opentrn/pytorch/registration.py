"""Making ``neuron`` a device that PyTorch knows: its name, dispatch keys, module, autocast rules and serialisation."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils import backend_registration

from opentrn import hardware
from opentrn.errors import UnsupportedError
from opentrn.neuroncore.machine import default_chip
from opentrn.pytorch import attention, autocast, device_module, memory, recording, tensor, usage

__all__ = ["configure", "register"]

_libraries: list[torch.library.Library] = []


class _Hooks(torch._C._acc.PrivateUse1Hooks):  # type: ignore[name-defined]
    def is_available(self) -> bool:
        return True

    def has_primary_context(self, dev_id: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


def configure(chip: str | None = None) -> None:
    """Make the devices those of ``chip``: one a logical core, each with its share of the chip's HBM."""
    chosen = hardware.chip(chip or default_chip())
    device_module.use_chip(chosen)
    memory.configure(device_module.device_count(), chosen.hbm_bytes // device_module.device_count())
    tensor.device_objects(device_module.device_count())


def register() -> None:
    """Do everything that is done once a process."""
    name = torch._C._get_privateuse1_backend_name()
    if name not in ("privateuseone", "neuron"):
        raise UnsupportedError(
            f"another package has registered its device {name!r} with PyTorch, which has room for one; "
            f"uninstall it or set "
            "TORCH_DEVICE_BACKEND_AUTOLOAD=0"
        )
    backend_registration._setup_privateuseone_for_python_backend("neuron", backend_module=device_module, hook=_Hooks())
    configure()
    _operations()
    autocast.register()
    torch.__future__.set_swap_module_params_on_conversion(True)  # module.to("neuron") keeps each parameter's identity
    torch.serialization.add_safe_globals([tensor.NeuronTensor])
    _name_the_way_from_cuda()
    _ignore_pinning()
    _answer_for_accelerator()
    _build_on_the_host()
    _watch_optimizers()
    _name_compile_backend()


def _operations() -> None:
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(lambda op, *args, **kwargs: tensor.dispatch(op, args, kwargs), "PrivateUse1")
    whole = torch.library.Library("aten", "IMPL")
    whole.impl("scaled_dot_product_attention", attention.scaled_dot_product_attention, "AutogradPrivateUse1")
    whole.impl("scaled_dot_product_attention", attention.scaled_dot_product_attention, "PrivateUse1")
    _libraries.extend((fallback, whole))


def _name_the_way_from_cuda() -> None:
    """Scripts written for CUDA get a sentence instead of 'Torch not compiled with CUDA enabled'."""
    if torch.cuda.is_available():
        return

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise UnsupportedError(
            'this machine has no CUDA device; write device = "neuron" and .to(device) where the script says "cuda" or .cuda() '
            "(torch.accelerator.current_accelerator() works on both)"
        )

    torch.cuda._lazy_init = refuse


def _ignore_pinning() -> None:
    """Pinned host memory only speeds up transfers on the real machine; here it is the tensor itself."""
    plain = torch.Tensor.pin_memory

    def pin_memory(self: torch.Tensor, device: Any = None) -> torch.Tensor:
        if torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda"):
            return plain(self)
        if type(self) is tensor.NeuronTensor:
            raise RuntimeError("cannot pin a tensor that is on the device; only host tensors can be pinned")
        return self

    torch.Tensor.pin_memory = pin_memory  # type: ignore[method-assign, assignment]


def _answer_for_accelerator() -> None:
    """``torch.accelerator`` asks C++ for streams and memory; a backend in Python answers here instead."""
    accelerator = torch.accelerator
    for name in (
        "synchronize",
        "memory_allocated",
        "max_memory_allocated",
        "memory_reserved",
        "max_memory_reserved",
        "reset_peak_memory_stats",
        "memory_stats",
        "empty_cache",
        "current_stream",
        "set_device_index",
    ):
        if hasattr(accelerator, name):
            setattr(accelerator, name, getattr(device_module, {"set_device_index": "set_device"}.get(name, name)))
    if hasattr(accelerator, "get_memory_info"):
        accelerator.get_memory_info = device_module.mem_get_info


def _build_on_the_host() -> None:
    """``torch.tensor`` and its kin make a tensor from Python data inside C++, where a backend in Python is not
    asked: make it here, then move it."""

    def wrap(plain: Any) -> Any:
        @functools.wraps(plain)
        def build(
            data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any
        ) -> torch.Tensor:
            target = torch.device(device) if device is not None else torch.get_default_device()
            if requires_grad:
                kwargs["requires_grad"] = True
            if target.type != "neuron" or type(data) is tensor.NeuronTensor:
                return (
                    plain(data, *args, device=device, **kwargs) if device is not None else plain(data, *args, **kwargs)
                )
            kwargs.pop("requires_grad", None)
            made = plain(data, *args, device="cpu", **kwargs).to(target)
            return made.requires_grad_() if requires_grad else made

        return build

    for name in ("tensor", "as_tensor", "asarray"):
        setattr(torch, name, wrap(getattr(torch, name)))


def _watch_optimizers() -> None:
    from torch.optim import optimizer as optimizers

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        first = next((p for group in optimizer.param_groups for p in group["params"]), None)
        if type(first) is tensor.NeuronTensor:
            usage.watch_optimizer(optimizer)
            recording.step_done()

    optimizers.register_optimizer_step_post_hook(after_step)
    # Optimizers then treat all parameters in one operation, as on other devices.
    supported = optimizers._foreach_supported_types
    if tensor.NeuronTensor not in supported:
        supported.append(tensor.NeuronTensor)


def _register_compile_backend() -> None:
    """``torch.compile(backend="neuron")``: the graph runs operation by operation on the device, whose regions are
    compiled as in eager mode.

    Dynamo does not look inside wrapper tensors, nor into our own frames.
    """
    from torch._dynamo import trace_rules
    from torch._dynamo.backends.registry import register_backend

    trace_rules.add("opentrn")

    def neuron(graph: Any, example_inputs: Any, **options: Any) -> Any:
        return graph.forward

    register_backend(neuron, name="neuron")  # type: ignore[arg-type]


def _name_compile_backend() -> None:
    """Register the backend when ``torch.compile`` is first used: importing Dynamo takes seconds that other scripts
    should not pay."""
    plain = torch.compile

    @functools.wraps(plain)
    def compile(*args: Any, **kwargs: Any) -> Any:  # noqa: A001
        global _compile_registered
        if not _compile_registered:
            _compile_registered = True
            _register_compile_backend()
        return plain(*args, **kwargs)

    torch.compile = compile


_compile_registered = False
