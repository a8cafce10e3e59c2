"""How the parameters are split for the optimizer."""

import pytest
import torch

import kvseg_monai
from kvseg_monai.blocks.parameter_groups import parameter_groups, query_biases


def make(net, attention):
    return getattr(kvseg_monai, net)(1, 3, 32, attention=attention, size="tiny")


@pytest.mark.parametrize("net", ["SETR", "TransUNet", "CvT"])
@pytest.mark.parametrize("attention", ["qkv", "kv", "kv_pos", "qk", "k"])
def test_the_fast_biases_are_those_of_whatever_asks(net, attention):
    network = make(net, attention)
    fast = {id(bias) for bias in query_biases(network)}
    names = [name for name, weight in network.named_parameters() if id(weight) in fast]
    attentions = [name for name, _ in network.named_modules() if name.endswith(".attention")]
    part = "query" if "q" in attention else "key"
    assert len(names) == len(attentions)
    for name, of in zip(names, attentions, strict=True):
        assert name.startswith(f"{of}.{part}.")
        assert name.endswith("bias")


@pytest.mark.parametrize(("rate", "groups"), [(1, 2), (30, 3)])
def test_every_parameter_is_in_one_group_at_its_rate(rate, groups):
    network = make("SETR", "kv")
    found = parameter_groups(network, learning_rate=0.001, weight_decay=0.05, query_bias_lr_scale=rate)
    optimizer = torch.optim.AdamW(found, lr=0.001)
    assert len(optimizer.param_groups) == groups
    in_groups = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(in_groups) == sorted(id(weight) for weight in network.parameters())
    fast = {id(bias) for bias in query_biases(network)}
    for group in optimizer.param_groups:
        expected = 0.001 * rate if {id(weight) for weight in group["params"]} <= fast else 0.001
        assert group["lr"] == pytest.approx(expected)
        assert all(weight.ndim > 1 for weight in group["params"]) or group["weight_decay"] == 0


def test_attention_without_biases_has_nothing_fast():
    network = torch.nn.Sequential(torch.nn.Linear(3, 3))
    assert query_biases(network) == []
    assert len(parameter_groups(network, learning_rate=1.0, weight_decay=0.1, query_bias_lr_scale=30)) == 2
