"""The attention family against its literal forms, formulas and symmetries."""

import pytest
import torch
import torch.nn.functional as F
from oracles import dense_relative_bias, literal_kv_pos, pair_encoding

from kvseg_monai.blocks import ATTENTION_KINDS, Attention, KeyBias, LinearProjection, RelativePosition, build_attention

GRID = (3, 5)
HIDDEN_SIZE, HEADS = 24, 2
HEAD_DIM = HIDDEN_SIZE // HEADS


def tokens(*, grid: tuple[int, int] = GRID, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, grid[0] * grid[1], HIDDEN_SIZE, dtype=dtype, requires_grad=True)


def build(kind: str, *, dropout: float = 0.0) -> Attention:
    torch.manual_seed(0)
    return build_attention(kind, HIDDEN_SIZE, HEADS, grid=GRID, dropout=dropout).double()


def logits(attention: Attention, x: torch.Tensor, grid: tuple[int, int] = GRID) -> torch.Tensor:
    """What the fused call takes the softmax of."""
    key = attention._heads(attention.key(x, grid))
    query = key if attention.query is None else attention._heads(attention.query(x, grid))
    mask = None
    if attention.position is not None:
        query, key, _, mask = attention.position(query, key, key, grid=grid, scale=attention.scale)
    return query @ key.transpose(-1, -2) * attention.scale + (0 if mask is None else mask)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [50, 10, 7])
def test_collapsed_kv_pos_equals_the_literal_form(channels, training):
    torch.manual_seed(0)
    key, value = (torch.randn(2, HEADS, 15, HEAD_DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    position = KeyBias(channels=channels, grid=GRID).double().train(training)
    position.encoding = position._encode(15)  # in float64, as the literal form
    with torch.no_grad():
        position.weight.normal_()
    scale = HEAD_DIM**-0.5
    q, k, v, mask = position(key, key, value, grid=GRID, scale=scale)
    fused = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)[..., :HEAD_DIM]
    offset, pairs = torch.tensor(0.7, dtype=torch.float64), pair_encoding(15, channels)
    literal = literal_kv_pos(key, value, position.weight, offset, pairs=pairs, scale=scale)
    torch.testing.assert_close(fused, literal, atol=1e-10, rtol=0)

    seed = torch.randn_like(fused)
    inputs = (key, value, position.weight)
    for ours, theirs in zip(
        torch.autograd.grad(fused, inputs, seed), torch.autograd.grad(literal, inputs, seed), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_kv_pos_starts_at_temperature_one_and_a_small_bias():
    position = KeyBias(grid=(16, 16))
    assert position.temperature().item() == pytest.approx(1.0)
    assert position.bias(256).abs().max() < 0.5


def test_key_bias_of_another_grid_is_that_of_a_module_made_for_it():
    torch.testing.assert_close(KeyBias(grid=(4, 4)).bias(35), KeyBias(grid=(5, 7)).bias(35))


@pytest.mark.parametrize("grid", [GRID, (5, 3), (1, 15)])
def test_folded_relative_position_equals_the_dense_bias(grid):
    torch.manual_seed(0)
    position = RelativePosition(head_dim=HEAD_DIM, grid=grid).double()
    query = torch.randn(2, HEADS, 15, HEAD_DIM, dtype=torch.float64)
    q, k, _, _ = position(query, query, query, grid=grid, scale=0.25)
    dense = 0.25 * query @ query.transpose(-1, -2) + dense_relative_bias(query, position.rows, position.columns, grid)
    torch.testing.assert_close(0.25 * q @ k.transpose(-1, -2), dense)


def test_relative_position_interpolates_to_another_grid():
    position = RelativePosition(head_dim=HEAD_DIM, grid=(2, 2))
    table = position._table(position.rows, 3)
    assert table.shape == (3, 3, HEAD_DIM)
    torch.testing.assert_close(table[1, 1], position.rows[1])  # no offset stays no offset
    torch.testing.assert_close(table[2, 0], position.rows[2])


def test_qkv_with_equal_query_and_key_weights_is_kv():
    qkv, kv = build("qkv"), build("kv")
    qkv.load_state_dict(kv.state_dict(), strict=False)
    qkv.query.load_state_dict(kv.key.state_dict())
    x = tokens()
    torch.testing.assert_close(qkv(x, GRID), kv(x, GRID))


def test_each_kind_computes_its_formula():
    x = tokens()
    for kind, parts in ATTENTION_KINDS.items():
        attention = build(kind)
        key = attention._heads(attention.key(x, GRID))
        value = attention._heads(attention.value(x, GRID)) if parts.value else key
        mixed = (logits(attention, x).softmax(-1) @ value).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention(x, GRID), attention.output(mixed), msg=kind)


@pytest.mark.parametrize(("kind", "symmetric"), [("kv", True), ("k", True), ("kv_rel", False), ("qkv", False)])
def test_symmetry_of_the_logits(kind, symmetric):
    matrix = logits(build(kind), tokens())
    assert torch.allclose(matrix, matrix.transpose(-1, -2)) is symmetric


@pytest.mark.parametrize(
    ("kind", "fewer"),
    [
        ("kv", HIDDEN_SIZE**2 + HIDDEN_SIZE),
        ("kv_pos", HIDDEN_SIZE**2 + HIDDEN_SIZE - 50),
        ("kv_rel", HIDDEN_SIZE**2 + HIDDEN_SIZE - (2 * GRID[0] - 1 + 2 * GRID[1] - 1) * HEAD_DIM),
        ("qk", HIDDEN_SIZE**2 + HIDDEN_SIZE),
        ("k", 2 * (HIDDEN_SIZE**2 + HIDDEN_SIZE)),
    ],
)
def test_parameters_saved_against_qkv(kind, fewer):
    count = {name: sum(p.numel() for p in build(name).parameters()) for name in ("qkv", kind)}
    assert count["qkv"] - count[kind] == fewer


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_every_kind_is_one_fused_call(kind, training, monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(kwargs["dropout_p"])
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    build(kind, dropout=0.3).train(training)(tokens(), GRID)
    assert calls == [0.3 if training else 0.0]


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_dropout_acts_in_training_only(kind):
    attention, x = build(kind, dropout=0.5), tokens()
    assert not torch.equal(attention(x, GRID), attention(x, GRID))
    attention.eval()
    assert torch.equal(attention(x, GRID), attention(x, GRID))


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_training_and_evaluation_compute_the_same_without_dropout(kind):
    attention, x = build(kind), tokens()
    torch.testing.assert_close(attention.train()(x, GRID), attention.eval()(x, GRID))


def test_unknown_kind_is_refused_with_the_list():
    with pytest.raises(ValueError, match="attention is 'vk'; it must be one of qkv, kv, kv_pos, kv_rel, qk, k"):
        build_attention("vk", HIDDEN_SIZE, HEADS, grid=GRID)


def test_heads_must_divide_hidden_size():
    with pytest.raises(ValueError, match="hidden_size is 25 and num_heads is 2"):
        Attention(25, 2, key=LinearProjection(25, 25))
