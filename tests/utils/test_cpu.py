"""The library of linear layers and the memory of large tensors."""

import resource
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from kvseg_monai.blocks import MLP, Linear
from kvseg_monai.errors import InputError
from kvseg_monai.utils import cpu


@pytest.fixture(autouse=True)
def _rule_again():
    yield
    cpu.tune_cpu()
    cpu._library_by_rule.cache_clear()


@pytest.mark.parametrize("shape", [(2, 9, 16), (1, 1, 16), (20, 4, 16)])
@pytest.mark.parametrize("bias", [True, False])
def test_both_libraries_give_the_same_values_and_gradients(shape, bias):
    torch.manual_seed(0)
    layer, tokens = Linear(16, 24, bias=bias), torch.randn(shape, requires_grad=True)
    results = {}
    for library in ("mkl", "onednn"):
        cpu.tune_cpu(linear=library)
        mapped = layer(tokens)
        results[library] = [mapped, *torch.autograd.grad(mapped.square().sum(), [tokens, *layer.parameters()])]
    assert torch.allclose(results["mkl"][0], F.linear(tokens, layer.weight, layer.bias), atol=1e-6)
    for one, other in zip(results["mkl"], results["onednn"], strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("vendor", "capability", "library"), [
    ("AuthenticAMD", "AVX512", "onednn"),
    ("AuthenticAMD", "AVX2", "mkl"),
    ("GenuineIntel", "AVX512", "mkl"),
    ("", "DEFAULT", "mkl"),
])  # fmt: skip
def test_the_rule_is_vendor_and_instruction_set(vendor, capability, library, monkeypatch):
    monkeypatch.setattr(cpu, "vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    cpu._library_by_rule.cache_clear()
    assert cpu.linear_library() == library
    cpu.tune_cpu(linear="mkl")
    assert cpu.linear_library() == "mkl"


def test_an_unknown_library_is_refused():
    with pytest.raises(InputError, match="--linear is 'blas'; it must be one of auto, mkl, onednn"):
        cpu.tune_cpu(linear="blas")


def test_a_scripted_and_an_exported_network_keep_the_plain_layer():
    cpu.tune_cpu(linear="onednn")
    block, tokens = MLP(16, 32).eval(), torch.randn(2, 5, 16)
    assert "mkldnn_convolution" not in str(torch.jit.script(block).linear1.inlined_graph)
    assert "mkldnn_convolution" not in str(torch.export.export(block, (tokens,)).graph)


FAULTS = """
import resource, sys, torch
from kvseg_monai.utils import cpu
torch.set_num_threads(1)
if sys.argv[1] == "kept": cpu.keep_freed_memory()
def work(): return sum(float((torch.ones(16 << 20) + 1)[0]) for _ in range(5))
for _ in range(5): work()  # the heap grows until what is freed between small things is large enough
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work(); print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is the GNU C library's")
def test_freed_memory_is_used_again():
    """Of 64 MB tensors each page, of 4 KiB, would be cleared again: 32,768 for the two of a round."""
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True).stdout
        )
        for mode in ("plain", "kept")
    }
    assert faults["plain"] > 50_000 * 4096 / resource.getpagesize()
    assert faults["kept"] < 1000
