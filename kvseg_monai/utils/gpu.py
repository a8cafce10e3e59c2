"""GPUs: whether the device of a run is there, and how convolutions are computed on it."""

import torch

from kvseg_monai.errors import InputError


def use_device(device: torch.device | str) -> None:
    """Check that a device is there, before anything is read or built; a GPU becomes the one of this process.

    Else torch would take the first GPU wherever none is named, as for pinned memory, beside the one that computes.

    Raises:
        InputError: torch has no such device, or finds none here.
    """
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"--device is {device!r}; it must be cpu, cuda, or cuda:0, cuda:1 and so on") from None
    if wanted.type != "cuda":
        return
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or not count:
        built = (
            "the installed torch is built without CUDA" if torch.version.cuda is None else "driver or card is missing"
        )
        raise InputError(
            f"--device is {device}, and torch finds no GPU here ({built}); give --device cpu, or leave it out"
        )
    if wanted.index is not None and wanted.index >= count:
        raise InputError(f"--device is {device}, and torch finds {count} GPU(s) here; the last is cuda:{count - 1}")
    torch.cuda.set_device(wanted)


def tune_gpu(device: torch.device | str) -> None:
    """Let cuDNN time its convolutions and take the fastest, for a training, whose slices all have one size.

    It is called after MONAI's ``set_determinism``, which forbids that, and in vain: on a GPU the backward pass of the
    bilinear upsampling adds up in any order, so that two runs of one seed differ by rounding there in any case. On the
    CPU nothing changes.

    Single precision stays torch's own: TF32 in convolutions, which keep 10 bits of each factor's fraction, and none in
    matrix products. What is faster on a GPU is ``precision: bf16``, or ``auto``.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
