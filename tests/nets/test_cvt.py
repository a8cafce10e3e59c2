"""CvT's contract, its thinned-out keys against strided convolutions and dense forms, and its reference sizes."""

import pytest
import torch
import torch.nn.functional as F
from net_contract import NetContract, assert_every_parameter_gets_a_gradient, count, every_kind, image
from oracles import dense_relative_bias, pair_encoding

import kvseg_monai
from kvseg_monai.blocks import (
    ATTENTION_KINDS,
    Attention,
    ConvProjection,
    KeyBias,
    RelativePosition,
    Subsample,
    build_attention,
)
from kvseg_monai.nets.cvt import PRESETS

HIDDEN_SIZE, HEADS = 24, 2
HEAD_DIM = HIDDEN_SIZE // HEADS
every_grid = pytest.mark.parametrize("grid", [(7, 5), (4, 6), (1, 3)])


class TestCvT(NetContract):
    NET = "CvT"
    SIZES = ("tiny", "small", "base", "large")
    GOLDEN = {"qkv": (-0.014963, 0.035663), "kv": (0.015623, 0.038671), "kv_pos": (0.015623, 0.038671)}

    def saved_by_kv(self, size):
        """Per block a linear map (C^2 + C), a depthwise 3x3 convolution (9 C) and its batch norm (2 C)."""
        stages = PRESETS[size]["stages"]
        return sum(n * (c**2 + 12 * c) for c, n in zip(stages["hidden_size"], stages["num_layers"], strict=True))

    def num_blocks(self, size):
        return sum(PRESETS[size]["stages"]["num_layers"])

    @every_kind
    def test_keys_at_every_token(self, kind):
        network = self.build(attention=kind, key_stride=1)
        assert not [m for m in network.modules() if isinstance(m, Subsample)]
        assert_every_parameter_gets_a_gradient(network)
        assert self.count_of(attention="kv", key_stride=1) == self.count_of(attention="kv")

    def test_wrong_key_stride_is_refused(self):
        with pytest.raises(ValueError, match="key_stride is 0; it must be 1"):
            self.build(key_stride=0)

    def test_encoder_publishes_what_it_returns(self):
        network = self.build().eval()
        with torch.no_grad():
            maps = network.encoder(image(64, 96))
        assert tuple(m.shape[1] for m in maps) == network.encoder.channels
        assert tuple(64 // m.shape[2] for m in maps) == tuple(96 // m.shape[3] for m in maps) == (4, 8, 16)


def attention(kind: str, grid: tuple[int, int]) -> Attention:
    torch.manual_seed(0)
    module = build_attention(kind, HIDDEN_SIZE, HEADS, grid=grid, projection=ConvProjection, key_stride=2).double()
    for batch_norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(batch_norm.running_mean)
        torch.nn.init.uniform_(batch_norm.running_var, 0.5, 2.0)
    return module.eval()


def tokens(grid: tuple[int, int]) -> torch.Tensor:
    return torch.randn(2, grid[0] * grid[1], HIDDEN_SIZE, dtype=torch.float64)


@every_grid
def test_thinned_out_keys_are_those_of_a_strided_convolution(grid):
    module, x = attention("kv", grid), tokens(grid)
    strided = ConvProjection(HIDDEN_SIZE, HIDDEN_SIZE, stride=2).double().eval()
    strided.load_state_dict(module.key.state_dict())
    keys = module.reduction(module.key(x, grid), grid)
    assert keys.shape == (2, ((grid[0] + 1) // 2) * ((grid[1] + 1) // 2), HIDDEN_SIZE)
    torch.testing.assert_close(keys, strided(x, grid), atol=1e-12, rtol=0)


@every_grid
def test_subsampling_keeps_rows_and_columns_0_2_4(grid):
    index = torch.arange(grid[0] * grid[1])
    kept = [i for i in index.tolist() if (i // grid[1]) % 2 == 0 and (i % grid[1]) % 2 == 0]
    assert Subsample(2)(index[None, :, None], grid).flatten().tolist() == kept


def thinned(grid: tuple[int, int]) -> torch.Tensor:
    """Indices of the attended keys among the tokens."""
    return Subsample(2)(torch.arange(grid[0] * grid[1])[None, :, None], grid).flatten()


@every_grid
@pytest.mark.parametrize("training", [True, False])
def test_key_bias_over_thinned_out_keys_equals_the_literal_form(grid, training):
    torch.manual_seed(0)
    position = KeyBias(grid=(2, 2)).double().train(training)
    query = torch.randn(2, HEADS, grid[0] * grid[1], HEAD_DIM, dtype=torch.float64)
    key, value = (torch.randn(2, HEADS, len(thinned(grid)), HEAD_DIM, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        position.weight.normal_()
    q, k, v, mask = position(query, key, value, grid=grid, scale=0.3)
    fused = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)[..., :HEAD_DIM]
    pairs = pair_encoding(query.shape[2], 50)[:, : key.shape[2]]  # attended keys count from 0
    literal = ((query @ key.mT * 0.3)[..., None] + pairs) @ position.weight
    torch.testing.assert_close(fused, literal.softmax(-1) @ value, atol=1e-6, rtol=0)  # the encoding is made in float32


@every_grid
def test_folded_relative_position_over_thinned_out_keys_equals_the_dense_bias(grid):
    torch.manual_seed(0)
    position = RelativePosition(head_dim=HEAD_DIM, grid=grid, key_stride=2).double()
    query = torch.randn(2, HEADS, grid[0] * grid[1], HEAD_DIM, dtype=torch.float64)
    key = query[:, :, thinned(grid)]
    q, k, _, _ = position(query, key, key, grid=grid, scale=0.25)
    bias = dense_relative_bias(query, position.rows, position.columns, grid)[..., thinned(grid)]
    torch.testing.assert_close(0.25 * q @ k.mT, 0.25 * query @ key.mT + bias)


@pytest.mark.parametrize("kind", ["qkv", "kv", "qk", "k"])
def test_each_kind_computes_its_formula_over_the_attended_keys(kind):
    grid = (7, 5)
    module, x, parts = attention(kind, grid), tokens(grid), ATTENTION_KINDS[kind]
    full = module.key(x, grid)
    key = full if parts.query else full[:, thinned(grid)]
    query = module.query(x, grid) if parts.query else full
    value = module.value(x, grid) if parts.value else key
    assert (query.shape[1], key.shape[1], value.shape[1]) == (35, 12, 12)
    q, k, v = (t.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2) for t in (query, key, value))
    mixed = ((q @ k.mT * HEAD_DIM**-0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(module(x, grid), module.output(mixed))


@every_kind
@pytest.mark.parametrize("training", [True, False])
def test_thinned_out_attention_is_one_fused_call(kind, training, monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append((args[0].shape[2], args[1].shape[2]))
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    attention(kind, (7, 5)).train(training)(tokens((7, 5)), (7, 5))
    assert calls == [(35, 12)]


def encoder_parameters(depth: tuple[int, int, int]) -> int:
    """CvT-13 or CvT-21 on three channels, by hand, without class token and classifier."""
    widths, patches = (64, 192, 384), (7, 3, 3)
    total, before = 2 * widths[-1], 3  # the final norm
    for width, patch, blocks in zip(widths, patches, depth, strict=True):
        embedding = patch**2 * before * width + width + 2 * width
        projections = 3 * (9 * width + 2 * width + width**2 + width) + width**2 + width
        mlp, norms = 2 * 4 * width**2 + 5 * width, 2 * 2 * width
        total += embedding + blocks * (projections + mlp + norms)
        before = width
    return total


@pytest.mark.parametrize(("size", "depth", "reported"), [("base", (1, 2, 10), 19.98e6), ("large", (1, 4, 16), 31.54e6)])
def test_encoder_is_the_reference_size(size, depth, reported):
    with torch.device("meta"):
        network = kvseg_monai.CvT(3, 4, 224, attention="qkv", size=size)
    assert count(network.encoder) == encoder_parameters(depth)
    class_token, classifier = 384, 384 * 1000 + 1000  # what the paper's figure counts on top
    assert count(network.encoder) + class_token + classifier == pytest.approx(reported, rel=0.005)
