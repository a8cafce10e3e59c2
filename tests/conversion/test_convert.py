"""Contracts of MONAI networks in Key-Value form."""

import copy
import inspect
import json
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.networks.blocks import CrossAttentionBlock, SABlock, SpatialAttentionBlock, TransformerBlock
from monai.networks.nets import UNETR, SwinUNETR, UNet, ViT, ViTAutoEnc
from monai.networks.nets.swin_unetr import WindowAttention
from support import names_in
from torch import nn

import kvseg_monai
from kvseg_monai.conversion.closest_key import closest_key
from kvseg_monai.conversion.convert import converted, main, to_kv
from kvseg_monai.conversion.modules import KeyValueSABlock, KeyValueWindowAttention
from kvseg_monai.errors import InputError
from kvseg_monai.utils.weights import load_weights, save_whole

HIDDEN_SIZE, HEADS = 16, 2
SMALL = {"hidden_size": HIDDEN_SIZE, "mlp_dim": 24, "num_heads": HEADS}


def unetr(dims: int, **options) -> UNETR:
    return UNETR(1, 2, img_size=(32,) * dims, feature_size=4, spatial_dims=dims, **SMALL, **options)


def swin(dims: int, **options) -> SwinUNETR:
    size = {"img_size": (64,) * dims} if "img_size" in inspect.signature(SwinUNETR).parameters else {}  # monai < 1.5
    options = {"depths": (2, 1, 1, 1), "num_heads": (2, 2, 2, 2), "feature_size": 12, "spatial_dims": dims, **options}
    return SwinUNETR(in_channels=1, out_channels=2, **size, **options)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "vit": lambda **options: ViT(1, (16, 16), 4, num_layers=2, spatial_dims=2, **SMALL, **options),
    "vit_auto_enc": lambda **options: ViTAutoEnc(1, (16, 16), 4, num_layers=2, spatial_dims=2, **SMALL, **options),
    "unetr_2d": lambda **options: unetr(2, **options),
    "unetr_3d": lambda **options: unetr(3, **options),
    "swin_unetr_2d": lambda **options: swin(2, **options),
    "swin_unetr_3d": lambda **options: swin(3, **options),
}
FORMS = [(name, "kv") for name in NETWORKS] + [(name, "kv_pos") for name in NETWORKS if "swin" not in name]


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name](**options)


def image(name: str) -> torch.Tensor:
    sizes = {"swin_unetr_2d": (64, 64), "swin_unetr_3d": (64, 32, 32), "unetr_2d": (32, 32), "unetr_3d": (32, 32, 32)}
    return torch.rand(1, 1, *sizes.get(name, (16, 16)), generator=torch.Generator().manual_seed(1))


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def logits(output) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def attentions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, (SABlock, WindowAttention))]


@torch.no_grad()
def share_query_and_key(network: nn.Module) -> None:
    for module in attentions(network):
        for weight in module.qkv.parameters():
            weight[: len(weight) // 3] = weight[len(weight) // 3 : len(weight) // 3 * 2]


def convert_block(block: nn.Module, attention: str = "kv", *, warm_start: bool = True) -> nn.Module:
    holder = nn.Sequential(copy.deepcopy(block))
    to_kv(holder, attention, warm_start)
    return holder[0]


@pytest.mark.parametrize("warm_start", [True, False])
@pytest.mark.parametrize(("name", "attention"), FORMS)
def test_shapes_and_counts(name, attention, warm_start):
    network, x = build(name).eval(), image(name)
    sources = attentions(network)
    before, saved = count(network), 0
    for source in sources:
        query = source.qkv.out_features // 3
        saved += query * (source.qkv.in_features + (source.qkv.bias is not None)) - 50 * (attention == "kv_pos")
    with torch.no_grad():
        shape = logits(network(x)).shape
        summary = to_kv(network, attention, warm_start)
        assert logits(network(x)).shape == shape
    assert count(network) == before - saved
    assert (summary.parameters_before, summary.parameters_after) == (before, before - saved)
    assert len(summary.blocks) == len(sources)
    assert sum(block.parameters_before - block.parameters_after for block in summary.blocks) == saved
    assert all((block.fit_error is not None) == warm_start for block in summary.blocks)
    assert attentions(network) == []
    assert not any(module.training for module in network.modules())
    rows = str(summary).splitlines()
    assert len(rows) == len(sources) + 2 + len(summary.left_alone)  # monai < 1.5 keeps an idle cross-attention
    assert rows[1].startswith(summary.blocks[0].name)
    assert f"{before - saved:,}" in rows[len(sources) + 1]


@pytest.mark.parametrize("warm_start", [True, False])
@pytest.mark.parametrize(("name", "attention"), FORMS)
def test_every_new_parameter_gets_a_gradient(name, attention, warm_start):
    network = build(name)
    summary = to_kv(network, attention, warm_start)
    output = logits(network(image(name)))
    (output * torch.randn_like(output)).sum().backward()
    weights = [
        (f"{block.name}.{part}", weight)
        for block in summary.blocks
        for part, weight in network.get_submodule(block.name).named_parameters()
    ]
    assert [part for part, weight in weights if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_shared_query_and_key_convert_exactly(name):
    options = {} if "swin" in name else {"qkv_bias": True}  # Swin has biases by default
    network, x = build(name, **options).eval(), image(name)
    share_query_and_key(network)
    with torch.no_grad():
        expected = logits(network(x))
        summary = to_kv(network)
        torch.testing.assert_close(logits(network(x)), expected, atol=1e-5, rtol=0)
    assert max(block.fit_error for block in summary.blocks) < 1e-6


def test_warm_kv_pos_starts_without_a_position_and_then_learns_one():
    network, x = build("vit").eval(), image("vit")
    share_query_and_key(network)
    with torch.no_grad():
        expected = logits(network(x))
        to_kv(network, "kv_pos")
        torch.testing.assert_close(logits(network(x)), expected, atol=1e-5, rtol=0)
    logits(network.train()(x)).square().sum().backward()
    assert network.blocks[0].attn.position.weight.grad.all()
    assert network.blocks[0].attn.position.encoding.shape[0] == 16  # the tokens of the patch embedding


@pytest.mark.parametrize("name", ["vit", "swin_unetr_2d"])
def test_evaluation_is_deterministic_with_dropout(name):
    rates = {"drop_rate": 0.3, "attn_drop_rate": 0.3} if "swin" in name else {"dropout_rate": 0.3}
    network, x = build(name, **rates), image(name)
    to_kv(network)
    with torch.no_grad():
        assert not torch.equal(logits(network(x)), logits(network(x)))
        network.eval()
        assert torch.equal(logits(network(x)), logits(network(x)))


@pytest.mark.parametrize(("name", "attention"), [("vit", "kv_pos"), ("unetr_2d", "kv"), ("swin_unetr_2d", "kv")])
def test_export_trace_and_state_dict_round_trips(name, attention, tmp_path):
    network, x = build(name).eval(), image(name)
    to_kv(network, attention)
    with torch.no_grad():
        expected = logits(network(x))
        torch.testing.assert_close(logits(torch.export.export(network, (x,)).module()(x)), expected)
        traced = torch.jit.trace(network, x, check_trace=False, strict=False)
        torch.testing.assert_close(logits(traced(x)), expected)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other = NETWORKS[name]().eval()
        to_kv(other, attention, warm_start=False)
        assert not torch.allclose(logits(other(x)), expected)
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        torch.testing.assert_close(logits(other(x)), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_biases_ride_along(bias, fused):
    """The logits of the warm start are those of the fit to the homogeneous input [x, 1]."""
    if "use_combined_linear" not in inspect.signature(SABlock).parameters and not fused:
        pytest.skip("this monai has fused projections only")
    torch.manual_seed(0)
    options = {} if fused else {"use_combined_linear": False}
    block = SABlock(HIDDEN_SIZE, HEADS, qkv_bias=bias, **options).double()
    new = convert_block(block)
    assert (new.key.bias is not None) is (new.value.bias is not None) is bias
    layers = ("qkv",) if fused else ("to_q", "to_k", "to_v")
    stacked = torch.cat([getattr(block, layer).weight for layer in layers])
    if bias:
        stacked = torch.cat((stacked, torch.cat([getattr(block, layer).bias for layer in layers])[:, None]), 1)
    query, key, value = stacked.detach().unflatten(0, (3, HEADS, -1))
    expected = closest_key(query, key)[0]
    ours = torch.cat((new.key.weight, new.key.bias[:, None]), 1) if bias else new.key.weight
    torch.testing.assert_close(ours.detach(), expected.flatten(0, 1))
    torch.testing.assert_close(new.value.weight.detach(), value.flatten(0, 1)[:, :HIDDEN_SIZE])
    assert torch.equal(new.out_proj.weight, block.out_proj.weight)


def shared_block(**options) -> SABlock:
    torch.manual_seed(0)
    block = SABlock(HIDDEN_SIZE, HEADS, qkv_bias=True, **options).double().eval()
    share_query_and_key(block)
    return block


OPTIONS = {
    "plain": {},
    "dim_head": {"dim_head": 6},
    "hidden_input_size": {"hidden_input_size": 10},
    "no_fc": {"include_fc": False},
    "causal": {"causal": True, "sequence_length": 12},
    "save_attn": {"save_attn": True},
    "save_attn_causal": {"save_attn": True, "causal": True, "sequence_length": 12},
    "flash": {"use_flash_attention": True},
    "relative_2d": {"rel_pos_embedding": "decomposed", "input_size": (3, 4)},
    "relative_3d": {"rel_pos_embedding": "decomposed", "input_size": (2, 2, 2)},
    "relative_causal": {
        "rel_pos_embedding": "decomposed",
        "input_size": (3, 4),
        "causal": True,
        "sequence_length": 12,
    },
    "dtype": {"attention_dtype": torch.float64},
}


@pytest.mark.parametrize("attention", ["kv", "kv_pos"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("training", [True, False])
def test_options_of_the_source_are_kept(option, attention, training):
    if not set(OPTIONS[option]) <= set(inspect.signature(SABlock).parameters):
        pytest.skip("this monai has no such option")
    block = shared_block(**OPTIONS[option]).train(training)
    for name, table in block.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(table)
    size = 8 if option == "relative_3d" else 12  # MONAI's 3D form works on cubes alone
    new, x = convert_block(block, attention), tokens(2, size, block.hidden_input_size)
    torch.testing.assert_close(new(x), block(x))
    if block.save_attn:
        torch.testing.assert_close(new.att_mat, block.att_mat)


@pytest.mark.skipif("attn_mask" not in inspect.signature(SABlock.forward).parameters, reason="this monai has no mask")
@pytest.mark.parametrize("attention", ["kv", "kv_pos"])
def test_masks_mean_what_they_mean_in_the_source(attention):
    x, keys = tokens(2, 12, HIDDEN_SIZE), torch.ones(2, 12)
    keys[0, 5:] = 0
    block = shared_block()
    torch.testing.assert_close(convert_block(block, attention)(x, attn_mask=keys), block(x, attn_mask=keys))
    flash = shared_block(use_flash_attention=True)
    additive = tokens(12, 12)
    for mask in (keys.bool()[:, None, None], additive):
        torch.testing.assert_close(convert_block(flash, attention)(x, mask), flash(x, mask))
    causal = convert_block(shared_block(causal=True, sequence_length=12))
    with pytest.raises(ValueError, match="this attention is causal; leave the mask out"):
        causal(x, keys)


def test_dropout_of_the_flash_path_acts_in_training_only():
    if "use_flash_attention" not in inspect.signature(SABlock).parameters:
        pytest.skip("this monai has no such option")
    block, x = shared_block(dropout_rate=0.5, use_flash_attention=True), tokens(2, 12, HIDDEN_SIZE)
    assert not torch.equal(block(x), block(x))  # the source's defect
    new = convert_block(block)
    assert torch.equal(new(x), new(x))
    assert not torch.equal(new.train()(x), new(x))


@pytest.mark.parametrize("window", [(2, 3), (2, 2, 2)])
@pytest.mark.parametrize("masked", [True, False])
def test_window_attention_equals_a_literal_computation(window, masked):
    torch.manual_seed(0)
    block = WindowAttention(HIDDEN_SIZE, HEADS, window, qkv_bias=True).double()
    new = convert_block(block)
    size = torch.Size(window).numel()
    x, mask = tokens(6, size, HIDDEN_SIZE), None  # two images of three windows
    if masked:
        mask = torch.where(tokens(3, size, size) > 0.5, -100.0, 0.0).double()
    key, value = (F.linear(x, part.weight, part.bias).unflatten(-1, (HEADS, -1)) for part in (new.key, new.value))
    expected = torch.empty(6, size, HEADS, HIDDEN_SIZE // HEADS, dtype=torch.float64)
    for window_index in range(6):
        for head in range(HEADS):
            keys = key[window_index, :, head]
            bias = block.relative_position_bias_table[block.relative_position_index, head]
            scores = keys @ keys.T / (HIDDEN_SIZE // HEADS) ** 0.5 + bias
            scores = scores if mask is None else scores + mask[window_index % 3]
            expected[window_index, :, head] = scores.softmax(-1) @ value[window_index, :, head]
    torch.testing.assert_close(new(x, mask), block.proj(expected.flatten(2)))
    share_query_and_key(block)
    torch.testing.assert_close(convert_block(block)(x, mask), block(x, mask))


@pytest.mark.parametrize("option", ["plain", "relative_2d", "causal"])
def test_every_block_is_one_fused_call(option, monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: calls.append(k["dropout_p"]) or fused(*a, **k)
    )
    new = convert_block(shared_block(dropout_rate=0.3, **OPTIONS[option]))
    for mode in (True, False):
        new.train(mode)(tokens(2, 12, HIDDEN_SIZE))
    convert_block(WindowAttention(HIDDEN_SIZE, HEADS, (2, 2)).double())(tokens(2, 4, HIDDEN_SIZE), None)
    assert calls == [0.3, 0.0, 0.0]


def test_a_better_start_than_a_fresh_key():
    """On a network whose query is near its key, as a trained one's may be, the warm start is near the source."""
    torch.manual_seed(0)
    block, x = shared_block(), tokens(2, 12, HIDDEN_SIZE)
    with torch.no_grad():
        block.qkv.weight += 0.02 * torch.randn_like(block.qkv.weight)
        distance = [(convert_block(block, warm_start=warm)(x) - block(x)).norm() for warm in (True, False)]
    assert distance[0] < 0.2 * distance[1]


def test_shared_frozen_and_half_precision_modules_stay_so():
    block = SABlock(HIDDEN_SIZE, HEADS)
    network = nn.ModuleDict({"first": block, "second": block, "cross": CrossAttentionBlock(HIDDEN_SIZE, HEADS)})
    network.to(torch.bfloat16).requires_grad_(False)
    summary = to_kv(network, "kv_pos")
    assert network["first"] is network["second"]
    assert len(summary.blocks) == 1
    assert summary.left_alone == ("cross (CrossAttentionBlock)",)
    assert "left alone: cross" in str(summary)
    assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for name, weight in network.named_parameters() if "position" not in name)


@pytest.mark.parametrize(
    "network",
    [lambda: TransformerBlock(HIDDEN_SIZE, 24, HEADS), lambda: SpatialAttentionBlock(2, 32, num_head_channels=16)],
)
def test_other_users_of_the_same_block(network):
    network = network()
    assert [block.name for block in to_kv(network).blocks] == ["attn"]
    assert isinstance(network.attn, KeyValueSABlock)


class Different(SABlock):
    def forward(self, x, attn_mask=None):
        return x


def test_a_subclass_with_its_own_forward_is_left_alone():
    network = nn.Sequential(Different(HIDDEN_SIZE, HEADS), WindowAttention(HIDDEN_SIZE, HEADS, (2, 2)))
    assert to_kv(network).left_alone == ("0 (Different)",)
    assert isinstance(network[1], KeyValueWindowAttention)


@pytest.mark.parametrize(
    ("network", "attention", "sentence"),
    [
        (
            lambda: nn.Sequential(SABlock(HIDDEN_SIZE, HEADS)),
            "qk",
            "attention is 'qk'; a conversion makes kv or kv_pos",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "kv", "Sequential has nothing to convert; .*SABlock and WindowAtt"),
        (lambda: UNet(2, 1, 2, (4, 8), (2,)), "kv", "UNet has nothing to convert"),
        (
            lambda: SABlock(HIDDEN_SIZE, HEADS),
            "kv",
            "the network is itself a SABlock; hand in the module that contains it",
        ),
        (
            lambda: nn.Sequential(SABlock(HIDDEN_SIZE, HEADS), WindowAttention(HIDDEN_SIZE, HEADS, (2, 2))),
            "kv_pos",
            "attention is 'kv_pos', but 1 is a WindowAttention, which has a position of its own; it converts to kv",
        ),
    ],
)
def test_what_cannot_be_converted_is_said_and_left_as_it_was(network, attention, sentence):
    network = network()
    before = list(network.modules())
    with pytest.raises(ValueError, match=sentence):
        to_kv(network, attention)
    assert list(network.modules()) == before


def test_a_converted_network_has_nothing_to_convert():
    network = build("vit")
    to_kv(network)
    with pytest.raises(ValueError, match="ViT has nothing to convert"):
        to_kv(network)


DEFINITION = {
    "_target_": "ViT",
    "in_channels": 1,
    "img_size": [16, 16],
    "patch_size": 4,
    "num_layers": 2,
    "spatial_dims": 2,
    **SMALL,
}


def test_bundle_definition_and_command_line(tmp_path, monkeypatch, capsys):
    """The command line writes what the bundle's network definition computes, with the summary on the terminal."""
    source = build("vit")
    torch.save(source.state_dict(), tmp_path / "model.pt")
    (tmp_path / "base.json").write_text(json.dumps({"network_def": {**DEFINITION, "num_layers": 7}}))
    (tmp_path / "train.json").write_text(json.dumps({"network_def#num_layers": 2}))
    definition = {"_target_": "kvseg_monai.conversion.converted", "network": DEFINITION}
    network = ConfigParser({"net": {**definition, "weights": str(tmp_path / "model.pt")}}).get_parsed_content("net")
    assert isinstance(network, ViT)
    torch.testing.assert_close(converted(source).state_dict(), network.state_dict())
    with pytest.raises(InputError, match="--warm_start is 'maybe'; it must be true or false"):
        converted(build("vit"), warm_start="maybe")

    files = {"config_file": ["base.json", "train.json"], "weights": ["model.pt"], "target": ["kv.pt"]}
    arguments = [part for name, of in files.items() for part in (f"--{name}", *(str(tmp_path / file) for file in of))]
    monkeypatch.setattr(sys, "argv", ["convert", *arguments])
    assert main() == 0
    assert "blocks.0.attn" in capsys.readouterr().out
    torch.testing.assert_close(torch.load(tmp_path / "kv.pt", weights_only=True), network.state_dict())
    assert names_in(tmp_path) == ["base.json", "kv.pt", "kv.safetensors", "model.pt", "train.json"]

    (tmp_path / "kv.pt").write_text("an earlier file")
    with pytest.raises(InputError, match=r"kv.pt is there already; give another --target, or --overwrite"):
        main()
    assert (tmp_path / "kv.pt").read_text() == "an earlier file"
    arguments.append("--overwrite")
    monkeypatch.setattr(sys, "argv", ["convert", *arguments])
    with pytest.raises(InputError, match=r"kv.pt is there and was not written by kvseg_monai, or was changed since"):
        main()
    (tmp_path / "kv.pt").unlink()
    assert main() == 0
    assert main() == 0  # and again, over its own
    torch.testing.assert_close(torch.load(tmp_path / "kv.pt", weights_only=True), network.state_dict())

    for extra, sentence in (
        (["--net_id", "net"], "train.json has no net; name its network with --net_id"),
        (["--attention", "k"], "attention is 'k'"),
        (["--weights", "none.pt"], "the weights none.pt are missing"),
        (["--target", str(tmp_path / "no" / "kv.pt")], "no does not exist"),
        (["--target", str(tmp_path)], "is there already"),
    ):
        monkeypatch.setattr(sys, "argv", ["convert", *arguments, *extra])
        with pytest.raises(ValueError, match=sentence):
            main()


def test_the_safetensors_beside_a_target_never_replace_what_is_read(tmp_path):
    """``base.pt`` is written with ``base.safetensors``, which here are the weights to convert."""
    source = tmp_path / "base.safetensors"
    save_whole(build("vit").state_dict(), source)
    (tmp_path / "net.json").write_text(json.dumps({"network_def": DEFINITION}))
    before = source.read_bytes()
    line = ["--config_file", str(tmp_path / "net.json"), "--weights", str(source), "--target"]
    for extra in ([], ["--overwrite"]):
        with pytest.raises(InputError, match=r"base\.safetensors is the same as --weights .*give another --target"):
            main([*line, str(tmp_path / "base.pt"), *extra])
    assert main([*line, str(tmp_path / "kv.safetensors")]) == 0
    with pytest.raises(InputError, match=r"kv\.safetensors is there already; give another --target, or --overwrite"):
        main([*line, str(tmp_path / "kv.pt")])
    assert source.read_bytes() == before
    assert names_in(tmp_path) == ["base.safetensors", "kv.safetensors", "net.json"]
    load_weights(converted(build("vit"), warm_start=False), tmp_path / "kv.safetensors")


def test_lazy_module_name():
    assert kvseg_monai.conversion.convert.to_kv is to_kv
