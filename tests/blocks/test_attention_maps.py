"""What is read from outside an attention is what its fused call computed; symmetry is as the formulas say."""

import dataclasses

import pytest
import torch

import kvseg_monai
from kvseg_monai.blocks import ATTENTION_KINDS, ConvProjection, KeyBias, LinearProjection, build_attention
from kvseg_monai.blocks.recording import record_attention

GRID, HIDDEN_SIZE, HEADS = (5, 4), 24, 2


class OneAttention(torch.nn.Module):
    """A network that is one attention: (B, C, H, W) -> (B, N, C)."""

    def __init__(self, kind, **options):
        super().__init__()
        torch.manual_seed(0)
        self.attention = build_attention(kind, HIDDEN_SIZE, HEADS, grid=GRID, **options)
        for module in self.modules():
            if isinstance(module, KeyBias):  # else the bias is as good as none
                torch.nn.init.normal_(module.weight, std=0.5)

    def forward(self, image):
        return self.attention(image.flatten(2).transpose(1, 2), tuple(image.shape[2:]))


def record(kind, grid=GRID, **options):
    """The layer of a lone attention, and what it put out."""
    network = OneAttention(kind, **options)
    image = torch.randn(2, HIDDEN_SIZE, *grid)
    (layer,), output = record_attention(network, image)
    return layer, output


FORMS = [
    pytest.param({"projection": projection, "key_stride": stride}, id=f"{projection.__name__}-{stride}")
    for projection, stride in ((LinearProjection, 1), (ConvProjection, 1), (ConvProjection, 2), (ConvProjection, 3))
]


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_softmax_of_the_logits_times_value_is_the_fused_output(kind, options):
    layer, output = record(kind, **options)
    torch.testing.assert_close(layer.attention.output(layer.mixed()), output)
    stride = options["key_stride"]
    assert layer.key_grid == (-(-GRID[0] // stride), -(-GRID[1] // stride))
    assert layer.logits().shape[-2:] == (20, layer.key_grid[0] * layer.key_grid[1])


def test_another_grid_than_the_one_it_was_made_for():
    layer, output = record("kv_rel", grid=(3, 7))
    torch.testing.assert_close(layer.attention.output(layer.mixed()), output)
    assert layer.grid == layer.key_grid == (3, 7)


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize(
    ("kind", "symmetric", "in_pairs"),
    [
        ("qkv", False, False),
        ("kv", True, True),
        ("kv_pos", False, True),  # only through g, a number per key
        ("kv_rel", False, False),
        ("qk", False, False),
        ("k", True, True),
    ],
)
def test_symmetry_is_that_of_the_kind(kind, symmetric, in_pairs, options):
    layer, _ = record(kind, **options)
    assert (layer.asymmetry() < 1e-4) is symmetric
    assert (layer.asymmetry(pairwise=True) < 1e-4) is in_pairs


def test_asymmetry_is_the_ratio_of_the_norms():
    layer, _ = record("qkv")
    logits = layer.logits()[0].double()
    logits = logits - logits.mean((1, 2), keepdim=True)
    ratio = (logits - logits.mT).norm() / (logits + logits.mT).norm()
    assert layer.asymmetry() == pytest.approx(float(ratio))


def test_the_share_of_the_key_alone():
    layer, _ = record("qkv")
    query, key = torch.zeros_like(layer.query), torch.zeros_like(layer.key)
    query[..., 0], key[..., 0] = 1.0, torch.randn(key.shape[-2])
    assert dataclasses.replace(layer, query=query, key=key).key_share() == pytest.approx(1.0)  # all queries are alike
    query[..., 0] = torch.linspace(-1, 1, query.shape[-2])
    assert dataclasses.replace(layer, query=query, key=key).key_share() == pytest.approx(0.0, abs=1e-12)
    query[..., 0] += 1  # what the queries have in common, among all that they hold
    expected = 1 / query[0, 0, :, 0].square().mean().item()
    assert dataclasses.replace(layer, query=query, key=key).key_share() == pytest.approx(expected, rel=1e-4)
    assert dataclasses.replace(layer, query=0 * query).key_share() == 0.0


def test_logits_that_a_softmax_cannot_distinguish_attend_alike():
    """Why KV+Pos counts as symmetric in pairs: adding g for the query too makes it so and changes no attention."""
    layer, _ = record("kv_pos")
    bias = layer.attention.position.bias(20)
    logits = layer.logits()
    symmetric = logits + bias[:, None]
    torch.testing.assert_close(symmetric, symmetric.mT)
    torch.testing.assert_close(symmetric.softmax(-1), logits.softmax(-1))


def test_a_map_is_the_attention_of_its_token():
    layer, _ = record("qkv")
    row, column = 3, 1
    found = layer.map_of(((row + 0.5) / 5, (column + 0.5) / 4))
    torch.testing.assert_close(found, layer.logits().softmax(-1)[0, :, row * 4 + column].mean(0).reshape(GRID))
    assert found.sum() == pytest.approx(1.0)
    torch.testing.assert_close(layer.map_of((1.0, 1.0)), layer.map_of((0.95, 0.95)))  # the far edge belongs to the last


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_key_bias_and_temperature(kind):
    layer, _ = record(kind)
    if kind == "kv_pos":
        torch.testing.assert_close(layer.key_bias().flatten(), layer.mask.flatten() - layer.mask.mean())
        assert layer.temperature() == pytest.approx(layer.attention.position.weight.sum().item())
    else:
        assert layer.key_bias() is None
        assert layer.temperature() == 1.0


@pytest.mark.parametrize("net", ["SETR", "TransUNet", "CvT"])
def test_every_layer_of_a_network_is_recorded_and_nothing_changes(net):
    torch.manual_seed(0)
    network = getattr(kvseg_monai, net)(1, 3, 32, attention="kv_pos", size="tiny").eval()
    image = torch.rand(1, 1, 32, 48)
    layers, output = record_attention(network, image)
    named = [name for name, _ in network.named_modules() if name.endswith("attention")]
    assert [layer.name for layer in layers] == named
    with torch.no_grad():
        assert torch.equal(output, network(image))
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_our_attention_has_no_layers():
    assert record_attention(torch.nn.Conv2d(1, 2, 1), torch.rand(1, 1, 4, 4))[0] == []
