"""The warm start against brute force: the closest key for weights alone, and on tokens."""

import copy

import pytest
import torch
from monai.networks.blocks import SABlock
from monai.networks.nets import UNETR, SwinUNETR, ViT
from monai.networks.nets.swin_unetr import WindowAttention
from torch import nn

from kvseg_monai.conversion.closest_key import LEVEL, Moments, closest_key, closest_key_on
from kvseg_monai.conversion.convert import converted, to_kv

CHANNELS, HEADS, HEAD_DIM = 12, 2, 4


def numbers(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normalised_tokens(count: int = 400) -> torch.Tensor:
    """Tokens as an attention meets them after a layer norm: much in common, little spread, unlike variances."""
    spread = numbers(count, CHANNELS) * torch.linspace(0.1, 1.5, CHANNELS)
    norm = nn.LayerNorm(CHANNELS).double()
    nn.init.normal_(norm.bias, std=0.3, generator=torch.Generator().manual_seed(3))
    return norm(spread + 2 * numbers(CHANNELS, seed=4)).detach()


def moments(tokens: torch.Tensor) -> Moments:
    rows = torch.cat((tokens, torch.ones(len(tokens), 1)), 1)
    return Moments.of(rows.mT @ rows / len(tokens))


def attention(tokens: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the attention maps, (h, N, N)."""
    if query.shape[2] > tokens.shape[1]:
        tokens = torch.cat((tokens, torch.ones(len(tokens), 1)), 1)
    return ((tokens @ query.mT) @ (tokens @ key.mT).mT).softmax(-1)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Total variation: the share of the attention that goes to other keys."""
    return (first - second).abs().sum(-1).mean().item() / 2


@pytest.mark.parametrize(("channels", "head_dim"), [(12, 4), (5, 4), (3, 4)])
def test_closest_key_is_the_best_symmetric_fit(channels, head_dim):
    """Against the eigenvectors of the full matrix, and against random competitors far and near."""
    query, key = numbers(2, 2, head_dim, channels)
    rows, error = closest_key(query, key)
    product = query.mT @ key
    values, vectors = torch.linalg.eigh((product + product.mT) / 2)
    best = (vectors * values.clamp(min=0)[:, None]) @ vectors.mT
    torch.testing.assert_close(rows.mT @ rows, best)
    assert (values > 1e-12).sum(1).max() <= head_dim
    assert error == pytest.approx(((product - best).norm() / product.norm()).item())
    torch.manual_seed(0)
    for scale in (1e-3, 1e-1, 1.0):
        for _ in range(20):
            other = rows + scale * torch.randn_like(rows)
            assert (product - other.mT @ other).norm() > (product - best).norm()


def test_closest_key_without_a_positive_part_is_zero():
    query = numbers(2, 4, 12)
    rows, error = closest_key(query, -query)
    torch.testing.assert_close(rows, torch.zeros_like(rows), atol=1e-6, rtol=0)
    assert error == pytest.approx(1.0)
    assert closest_key(0 * query, query)[1] == 0


def test_moments_are_mean_and_covariance():
    tokens = normalised_tokens()
    torch.testing.assert_close(moments(tokens).mean, tokens.mean(0))
    torch.testing.assert_close(moments(tokens).covariance, tokens.mT.cov(correction=0))
    root, inverse = moments(tokens + 0.1 * numbers(400, CHANNELS)).roots()
    torch.testing.assert_close(root @ inverse, torch.eye(CHANNELS).double(), atol=5e-3, rtol=0)
    constant = tokens @ moments(tokens).constant()
    assert constant.mean() == pytest.approx(1, abs=0.01)
    assert constant.std() < 0.05


def test_on_white_tokens_the_key_is_the_best_fit_to_the_bordered_target():
    """Against the eigenvectors of the target itself, where [w, 1] is the token; the first level is the trained one."""
    query, key = numbers(2, HEADS, HEAD_DIM, CHANNELS + 1)
    white = Moments(torch.zeros(CHANNELS).double(), torch.eye(CHANNELS).double())
    rows, error = closest_key_on(white, query, key)
    product = query.mT @ key
    effect, losses = product[:, -1, :-1], []
    for level in (product[:, -1, -1].clamp(min=1e-9), LEVEL * effect.norm(dim=1)):
        target = (product + product.mT) / 2
        target[:, -1, :-1] = target[:, :-1, -1] = effect
        target[:, -1, -1] = level
        values, vectors = torch.linalg.eigh(target)
        best = (vectors * values.clamp(min=0)[:, None])[..., -HEAD_DIM:] @ vectors[..., -HEAD_DIM:].mT
        losses.append((product - best)[..., :-1].square().sum((1, 2)))
    losses = torch.stack(losses).amin(0)
    found = (product - rows.mT @ rows)[..., :-1].square().sum((1, 2))
    torch.testing.assert_close(found, losses, rtol=1e-3, atol=0)
    assert error == pytest.approx((losses.sum() / product[..., :-1].square().sum()).sqrt().item(), rel=1e-3)


@pytest.mark.parametrize("bias", [0, 1])
def test_a_query_that_is_the_key_comes_out_as_it_is(bias):
    tokens, key = normalised_tokens(), numbers(HEADS, HEAD_DIM, CHANNELS + bias)
    rows, error = closest_key_on(moments(tokens), key, key)
    assert error < 0.01
    assert distance(attention(tokens, rows, rows), attention(tokens, key, key)) < 0.02


@pytest.mark.parametrize("bias", [0, 1])
def test_without_any_preference_all_keys_are_alike(bias):
    tokens, key = normalised_tokens(), numbers(HEADS, HEAD_DIM, CHANNELS + bias)
    rows, error = closest_key_on(moments(tokens), 0 * key, key)
    assert error == 0
    torch.testing.assert_close(attention(tokens, rows, rows), torch.full((HEADS, 400, 400), 1 / 400).double())


@pytest.mark.parametrize("bias", [0, 1])
def test_what_every_query_wants_is_kept(bias):
    """An attention to the same keys from everywhere: the form that suits the weights alone misses much of that."""
    tokens, (query, key) = normalised_tokens(), numbers(2, HEADS, HEAD_DIM, CHANNELS + bias) / 2
    query[..., :CHANNELS] = 0 if bias else query[..., :1] * moments(tokens).constant()
    trained = attention(tokens, query, key)
    rows, _ = closest_key_on(moments(tokens), query, key)
    plain, _ = closest_key(query, key)
    assert distance(attention(tokens, rows, rows), trained) < 0.5 * distance(attention(tokens, plain, plain), trained)


@pytest.mark.parametrize("bias", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_on_tokens_is_nearer_than_for_the_weights_alone(bias, seed):
    tokens, (query, key) = normalised_tokens(), numbers(2, HEADS, HEAD_DIM, CHANNELS + bias, seed=seed) / 2
    trained = attention(tokens, query, key)
    on_tokens, plain = closest_key_on(moments(tokens), query, key)[0], closest_key(query, key)[0]
    assert distance(attention(tokens, on_tokens, on_tokens), trained) < distance(
        attention(tokens, plain, plain), trained
    )


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "mlp_dim": 24, "num_heads": 2, "spatial_dims": 2}
    return {
        "vit": ViT(1, (32, 32), 4, num_layers=2, qkv_bias=True, **small),
        "unetr": UNETR(1, 2, img_size=(32, 32), feature_size=4, **small),
        "swin": SwinUNETR(1, 2, depths=(2, 1, 1, 1), num_heads=(2,) * 4, feature_size=12, spatial_dims=2),
    }


@torch.no_grad()
def sharpened(network: nn.Module) -> nn.Module:
    """Make a random network attend to single keys, and its norms add a constant, as in a trained one."""
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, (SABlock, WindowAttention)):
            module.qkv.weight[: len(module.qkv.weight) * 2 // 3] *= 3
    return network


@pytest.mark.parametrize("name", ["vit", "unetr", "swin"])
def test_a_network_converted_on_images_stays_nearer_to_itself(name):
    network = sharpened(networks()[name])
    size = 64 if name == "swin" else 32
    images, others = torch.rand(2, 4, 1, size, size, generator=torch.Generator().manual_seed(1))
    forms = {
        "source": network,
        "images": converted(copy.deepcopy(network), images=images),
        "weights": converted(copy.deepcopy(network)),
    }
    with torch.no_grad():
        outputs = {form: module.eval()(others) for form, module in forms.items()}
    outputs = {form: output[0] if isinstance(output, tuple) else output for form, output in outputs.items()}
    moved = {form: (outputs[form] - outputs["source"]).norm() for form in ("images", "weights")}
    assert moved["images"] < 0.8 * moved["weights"]


def test_measuring_leaves_no_trace():
    network = networks()["vit"].train()
    network.blocks[1].eval()
    modes = [module.training for module in network.blocks]
    summary = to_kv(network, images=torch.rand(2, 1, 32, 32))
    assert [module.training for module in network.blocks] == modes == [True, False]
    assert network.blocks[0].attn.training
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(0 < block.fit_error < 1 for block in summary.blocks)


def test_without_a_warm_start_or_with_tables_of_relative_positions_images_change_nothing():
    torch.manual_seed(0)
    block = nn.Sequential(SABlock(16, 2, rel_pos_embedding="decomposed", input_size=(3, 4)))
    keys = [converted(copy.deepcopy(block), images=images)[0].key.weight for images in (torch.rand(2, 12, 16), None)]
    assert torch.equal(*keys)
    network = networks()["unetr"]
    summary = to_kv(network, warm_start=False, images=torch.rand(2, 1, 32, 32))
    assert {block.fit_error for block in summary.blocks} == {None}
