"""Cost of each network with each kind of attention: ``python -m kvseg_monai.complexity``.

Parameters and multiply-accumulates (MACs) are counted, see :func:`kvseg_monai.cost.counting.count_macs`; peak memory
is that of the weights plus :func:`kvseg_monai.cost.counting.peak_memory`. Latency is measured on one image: all kinds
of a network, and a large linear layer that measures the machine's rate, take turns within one run. All of them compute
as in the bundles: images laid out channels last, linear layers by the library that
:func:`kvseg_monai.utils.cpu.linear_library` chooses, whose rate is the honest one where MKL uses half of a processor.
A ratio of latencies, and a share of that rate, is the median over the rounds of the ratio within a round, since what
slows a shared machine down for a while hits both sides of it; it may differ a little from the ratio of the medians.
"""

import argparse
import copy
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kvseg_monai import nets
from kvseg_monai.blocks import ATTENTION_KINDS
from kvseg_monai.blocks.linear import linear
from kvseg_monai.cost.counting import count_macs, peak_memory
from kvseg_monai.cost.table import FORMATS, split_readme, to_markdown, update_readme
from kvseg_monai.cost.timing import time_in_turn
from kvseg_monai.errors import InputError
from kvseg_monai.nets.checks import choose
from kvseg_monai.utils.cpu import tune_cpu
from kvseg_monai.utils.program import program
from kvseg_monai.utils.provenance import commit, machine
from kvseg_monai.utils.tensors import laid_out

NETS = ("SETR", "TransUNet", "CvT")
SETR_DECODERS = ("naive", "pup")
GEMM, GEMM_SIDE = "GEMM", 2048  # large enough for the full rate, small enough for a turn in every round
PLACEMENTS = 5  # the weights are copied so often in a run: where they lie in memory alone makes some per cent
MIB = 2**20


@dataclass(frozen=True)
class Variant:
    """A network but for its attention; ``decoder`` is SETR's, None elsewhere."""

    net: str
    decoder: str | None
    size: str
    img_size: int

    def __str__(self) -> str:
        return " ".join(filter(None, (self.net, self.decoder, self.size)))

    def build(self, attention: str) -> nn.Module:
        """Build it for one channel and four classes, with random weights, in evaluation mode."""
        options = {"decoder": self.decoder} if self.decoder else {}
        network = getattr(nets, self.net)
        return network(1, 4, self.img_size, attention=attention, size=self.size, **options).eval()

    def image(self) -> Tensor:
        """Return one random image, (1, 1, H, W)."""
        return torch.rand(1, 1, self.img_size, self.img_size)


def count(variant: Variant, attention: str) -> dict[str, int]:
    """Count parameters and MACs, on the meta device.

    Raises:
        ValueError: for an unknown name, or an image size that the network does not take.
    """
    with torch.device("meta"):
        network = variant.build(attention)
        complete, conv_linear = count_macs(network, variant.image())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters, "macs_complete": complete, "macs_conv_linear": conv_linear}


def _time(
    networks: Mapping[str, nn.Module], image: Tensor, *, rounds: int, title: str
) -> Iterator[dict[str, np.ndarray]]:
    """Yield seconds of each network and of the matrix product, of some rounds with the weights in one place."""
    tokens, weight = (torch.rand(GEMM_SIDE, GEMM_SIDE, device=image.device) for _ in range(2))
    for share in np.array_split(np.arange(rounds), min(rounds, PLACEMENTS)):
        networks = {kind: copy.deepcopy(network) for kind, network in networks.items()}
        tasks = {kind: partial(network, image) for kind, network in networks.items()}
        tasks[GEMM] = partial(linear, tokens[None], weight, None)
        yield time_in_turn(tasks, rounds=len(share), title=title)


@torch.no_grad()
def measure(
    variant: Variant, kinds: Sequence[str], *, rounds: int, device: str = "cpu"
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Return the memory of each kind, in MiB, and the seconds (rounds,) of each kind and of the matrix product."""
    image = variant.image().to(device, memory_format=torch.channels_last)
    networks = {kind: laid_out(variant.build(kind), device) for kind in kinds}
    timed = list(_time(networks, image, rounds=rounds, title=str(variant)))
    seconds = {name: np.concatenate([part[name] for part in timed]) for name in timed[0]}
    memory = {}
    for kind, network in networks.items():
        weights = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())) / MIB
        activations = peak_memory(partial(network, image), device) / MIB
        memory[kind] = {"weights_mib": weights, "activations_mib": activations, "memory_mib": weights + activations}
    return memory, seconds


def compare(
    variant: Variant, counted: Mapping[str, Mapping[str, int]], *, against: str, rounds: int, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Return one row per counted kind: its costs, and their ratios to those of the kind ``against``."""
    memory, seconds = measure(variant, list(counted), rounds=rounds, device=device)
    costs = {kind: {**counted[kind], **memory[kind]} for kind in counted}
    gemm_macs, gemm_seconds = GEMM_SIDE**3, seconds[GEMM]
    rows = []
    for kind, cost in costs.items():
        low, middle, high = np.quantile(seconds[kind] / seconds[against], (0.25, 0.5, 0.75)).tolist()
        rows.append(
            {
                **{"network": str(variant), "img_size": variant.img_size, "attention": kind},
                **cost,
                **{f"{name}_ratio": value / costs[against][name] for name, value in cost.items()},
                "latency_ms": 1e3 * float(np.median(seconds[kind])),
                **{"latency_ratio": middle, "latency_ratio_low": low, "latency_ratio_high": high},
                "gemm_gflops": 2e-9 * gemm_macs / float(np.median(gemm_seconds)),
                "gemm_share": cost["macs_complete"] / gemm_macs * float(np.median(gemm_seconds / seconds[kind])),
            }
        )
    return rows


def _variants(options: argparse.Namespace) -> list[Variant]:
    for net in options.nets:
        choose("--nets", net, NETS)
    if options.decoder and "SETR" not in options.nets:
        raise ValueError("--decoder is given, which is for SETR, but --nets leaves SETR out; leave --decoder out too")
    decoders = {"SETR": dict.fromkeys(options.decoder or SETR_DECODERS)}
    return [
        Variant(net, decoder, options.size, options.img_size)
        for net in dict.fromkeys(options.nets)
        for decoder in decoders.get(net, [None])
    ]


def _count_all(options: argparse.Namespace) -> dict[Variant, dict[str, dict[str, int]]]:
    """Check the options, and count what is to be measured: variant -> kind, the one to compare with first -> counts.

    Raises:
        ValueError: for an unknown name, or a number out of range.
    """
    choose("--format", options.format, FORMATS)
    choose("--device", options.device, ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    if options.repeats < 1:
        raise ValueError(f"--repeats is {options.repeats}; it must be 1 or more")
    kinds = dict.fromkeys([options.against, *options.attention])
    return {variant: {kind: count(variant, kind) for kind in kinds} for variant in _variants(options)}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program("kvseg_monai.complexity"), description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--nets", nargs="+", default=NETS, help="(default: %(default)s)")
    add("--attention", nargs="+", default=list(ATTENTION_KINDS), help="kinds (default: %(default)s)")
    add("--against", default="qkv", help="kind that ratios refer to; measured in any case (default: %(default)s)")
    add("--decoder", nargs="+", help=f"SETR's (default: {SETR_DECODERS})")
    add("--size", default="base", help="preset of each network (default: %(default)s)")
    add("--img-size", type=int, default=256, help="side of the image (default: %(default)s)")
    add("--repeats", type=int, default=30, help="measured rounds (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--format", default="md", help=f"{', '.join(FORMATS)} (default: %(default)s)")
    add("--readme", type=Path, nargs="?", const=Path("README.md"), help="put the table into this file too (%(const)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, count, measure, print."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parse(arguments)
    if options.readme:
        split_readme(options.readme)  # before minutes of measuring
    tune_cpu()
    try:
        counted = _count_all(options)
    except ValueError as error:
        raise InputError(str(error)) from error
    measured = {"against": options.against, "rounds": options.repeats, "device": options.device}
    result = {
        "rows": [row for variant, counts in counted.items() for row in compare(variant, counts, **measured)],
        "against": options.against,
        "repeats": options.repeats,
        "command": shlex.join(["python", "-m", "kvseg_monai.complexity", *arguments]),
        "commit": commit() or "unknown",
        "machine": machine(options.device),
        "torch": torch.__version__,
    }
    print(FORMATS[options.format](result))
    if options.readme:
        update_readme(options.readme, to_markdown(result))
    return 0
