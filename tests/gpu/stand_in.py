"""A device that stands for a GPU on a machine without one: tensors with shapes and a device, and no numbers.

torch's ``FakeTensorMode`` refuses what mixes devices, and all that would wait for a GPU, as ``item`` and ``bool``.
The CPU build of torch has no CUDA to name, so the device is one of those that torch lets a program register.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

CARD = "card"


@contextmanager
def card() -> Iterator[None]:
    """Within the block tensors are without numbers, and there is a device :data:`CARD`; for the rest of the process."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(CARD)
    getattr(torch, CARD).get_amp_supported_dtype = lambda: [torch.bfloat16]  # autocast asks for it, also when disabled
    # The device has no generator of random numbers; and MONAI's Dice loss asks a tensor of the host for numbers.
    generator = mock.patch("kvseg_monai.transforms.augment.torch.Generator")
    numbers = mock.patch("monai.losses.dice.torch", _Torch())
    with generator as made, numbers, FakeTensorMode():
        made.return_value.manual_seed.return_value = None
        yield


class _Torch:
    """torch, whose ``arange`` is NumPy's."""

    arange = staticmethod(np.arange)

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


def on_card(build: Callable[[], nn.Module]) -> nn.Module:
    """A network on the device; to be called within :func:`card`."""
    with unset_fake_temporarily(), torch.device("meta"):
        network = build()
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
            module.register_parameter(name, nn.Parameter(torch.empty(weight.shape, device=CARD, memory_format=layout)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CARD))
    return network


def in_a_process(work: Callable[..., None], *arguments: object) -> None:
    """Call a function of a test module in a process of its own, and raise what it raises.

    A device stays registered, and must be before the first gradient: so the process comes from one that has imported
    the modules, and no more.
    """
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch registers no device from Python")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, and test_on_a_gpu.py needs no stand-in for it")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai", "torch._dynamo", "kvseg_monai.nets"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, work, arguments), daemon=True)
    process.start()
    theirs.close()
    raised = ours.recv() if ours.poll(300) else "it takes longer than five minutes"
    process.kill()
    assert not raised, raised


def _report(pipe: Connection, work: Callable[..., None], arguments: Sequence[object]) -> None:
    try:
        work(*arguments)
    except BaseException as error:
        pipe.send("".join(traceback.format_exception(error)))
    else:
        pipe.send("")
