"""SETR's contract: sizes, shapes, gradients, export, and the checks of what users hand in."""

import pytest
import torch

import kvseg_monai
from kvseg_monai.blocks import ATTENTION_KINDS
from kvseg_monai.nets.setr_decoders import DECODERS

SIDE = 64


def build(**options) -> kvseg_monai.SETR:
    torch.manual_seed(0)
    return kvseg_monai.SETR(1, 4, SIDE, **{"attention": "kv", "size": "tiny", **options})


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def image(*size: int) -> torch.Tensor:
    return torch.rand(2, 1, *(size or (SIDE, SIDE)), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(64, 64), (96, 32), (16, 144)])
def test_any_multiple_of_the_patch_gives_logits_of_the_input_size(decoder, size):
    with torch.no_grad():
        assert build(decoder=decoder).eval()(image(*size)).shape == (2, 4, *size)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("patch_size", [4, 8])
def test_smaller_patches(decoder, patch_size):
    with torch.no_grad():
        assert build(decoder=decoder, patch_size=patch_size).eval()(image(32, 48)).shape == (2, 4, 32, 48)


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_parameter_gets_a_gradient(kind, decoder):
    network = build(attention=kind, decoder=decoder)
    output = network(image())
    (output * torch.randn_like(output)).sum().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_evaluation_is_deterministic_with_dropout(kind):
    network = build(attention=kind, dropout=0.3)
    with torch.no_grad():
        assert not torch.equal(network(image()), network(image()))
        network.eval()
        assert torch.equal(network(image()), network(image()))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_what_kv_saves(size):
    qkv, kv, kv_pos = (build(attention=kind, size=size) for kind in ("qkv", "kv", "kv_pos"))
    channels, layers = qkv.encoder.channels[0], len(qkv.encoder.blocks)
    assert count(qkv) - count(kv) == layers * (channels**2 + channels)
    assert count(kv_pos) - count(kv) == layers * 50
    linear = sum(w.numel() for n, w in qkv.encoder.blocks.named_parameters() if w.ndim == 2)
    assert layers * channels**2 / linear == pytest.approx(1 / (4 + 2 * 4))  # 1 / (4 + 2 r), r = 4


def vit_b16_parameters(channels: int, grid: int) -> int:
    """ViT-B/16 without class token and head, counted by hand from its definition."""
    width, layers, patch = 768, 12, 16
    embedding = patch**2 * channels * width + width + grid**2 * width
    attention = 4 * (width**2 + width)
    mlp = 2 * 4 * width**2 + 4 * width + width
    return embedding + layers * (attention + mlp + 2 * 2 * width)


@pytest.mark.parametrize(
    ("decoder", "decoder_parameters"),
    [
        # 1x1 to 256, batch norm, classifier
        ("naive", 768 * 256 + 2 * 256 + 256 * 4 + 4),
        # four 3x3 convolutions with batch norm, classifier
        ("pup", 9 * 768 * 256 + 3 * 9 * 256**2 + 4 * 2 * 256 + 256 * 4 + 4),
        # per level: 1x1 and 3x3 to 256, 3x3 to 128 twice, each with batch norm; a 3x3 classifier over 512
        ("mla", 4 * (768 * 256 + 9 * 256**2 + 4 * 256 + 9 * 256 * 128 + 9 * 128**2 + 4 * 128) + 9 * 512 * 4 + 4),
    ],
)
def test_base_is_the_reference_size(decoder, decoder_parameters):
    network = build(attention="qkv", size="base", decoder=decoder)
    norms = 2 * 768 * DECODERS[decoder].LEVELS
    assert count(network.encoder) == vit_b16_parameters(1, SIDE // 16) + norms
    assert count(network.decoder) == decoder_parameters


def test_mla_reads_the_papers_layers():
    assert build(size="base", decoder="mla").encoder.out_layers == [3, 6, 9, 12]


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_export_trace_script_and_state_dict_round_trips(kind, tmp_path):
    network, x = build(attention=kind).eval(), image()
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)
        torch.testing.assert_close(torch.jit.trace(network, x)(x), expected)
        torch.testing.assert_close(torch.jit.script(network)(x), expected)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        torch.manual_seed(5)
        other = kvseg_monai.SETR(1, 4, SIDE, attention=kind, size="tiny").eval()
        assert not torch.allclose(other(x), expected)
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        torch.testing.assert_close(other(x), expected)


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_one_image_and_a_batch_agree(kind):
    network, x = build(attention=kind).eval(), image()
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:], network(x[1:]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attention": "vk"}, "attention is 'vk'; it must be one of qkv, kv, kv_pos, kv_rel, qk, k"),
        ({"size": "huge"}, "size is 'huge'; it must be one of tiny, small, base"),
        ({"decoder": "unet"}, "decoder is 'unet'; it must be one of naive, pup, mla"),
        ({"patch_size": 12}, "patch_size is 12; it must be a power of two"),
    ],
)
def test_unknown_options_are_refused_with_what_is_allowed(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**options)


@pytest.mark.parametrize("img_size", [100, (64, 100), (64, 64, 64), 0, (-16, 16)])
def test_wrong_image_sizes_are_refused(img_size):
    with pytest.raises(ValueError, match="img_size is"):
        kvseg_monai.SETR(1, 4, img_size, size="tiny")


def test_an_input_off_the_grid_is_refused_with_the_nearest_size():
    with pytest.raises(ValueError, match=r"the input is 60 x 64; each side must be a multiple of 16.*64 x 64"):
        build()(image(60, 64))


GOLDEN = {  # mean and standard deviation of the logits, by torch 2.13.0
    "qkv": (-0.013457, 0.067167),
    "kv": (-0.024241, 0.070885),
    "kv_pos": (-0.024239, 0.070868),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_values(kind):
    """A change of these numbers means that trained weights no longer do what they did."""
    with torch.no_grad():
        output = build(attention=kind).eval()(image())
    assert (output.mean().item(), output.std().item()) == pytest.approx(GOLDEN[kind], rel=1e-3)
