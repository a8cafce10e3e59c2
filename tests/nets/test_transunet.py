"""TransUNet's contract, and its reference size against a count by hand."""

import pytest
import torch
from net_contract import NetContract, count

import kvseg_monai
from kvseg_monai.nets.resnet import ResNetV2, StandardisedConv2d
from kvseg_monai.nets.transunet import PRESETS
from kvseg_monai.nets.unet_decoder import UNetDecoder


class TestTransUNet(NetContract):
    NET = "TransUNet"
    GOLDEN = {"qkv": (0.006251, 0.052281), "kv": (0.00431, 0.041844), "kv_pos": (0.00431, 0.041844)}

    def saved_by_kv(self, size):
        channels = PRESETS[size]["transformer"]["hidden_size"]
        return self.num_blocks(size) * (channels**2 + channels)

    def num_blocks(self, size):
        return PRESETS[size]["transformer"]["num_layers"]


def resnet_parameters(channels: int) -> int:
    """R50 without its last stage, 64 channels at the root: convolutions without bias, scale and offset per norm."""

    def unit(wide: int, narrow: int, out: int) -> int:
        return wide * narrow + 9 * narrow**2 + narrow * out + 2 * (narrow + narrow + out)

    total = 7**2 * channels * 64 + 2 * 64
    wide = 64
    for narrow, units in ((64, 3), (128, 4), (256, 9)):
        out = 4 * narrow
        shortcut = wide * out + 2 * out
        total += unit(wide, narrow, out) + shortcut + (units - 1) * unit(out, narrow, out)
        wide = out
    return total


def vit_b_parameters(grid: int) -> int:
    """ViT-B on 1024 channels, a patch of 1, without class token: embedding, positions, 12 blocks, final norm."""
    width = 768
    attention, mlp, norms = 4 * (width**2 + width), 2 * 4 * width**2 + 5 * width, 2 * 2 * width
    return 1024 * width + width + grid**2 * width + 12 * (attention + mlp + norms) + 2 * width


def decoder_parameters(classes: int) -> int:
    """3x3 to 512, four steps of two 3x3 convolutions with batch norm, the 3x3 head."""
    steps = ((512 + 512, 256), (256 + 256, 128), (128 + 64, 64), (64, 16))
    total = 9 * 768 * 512 + 2 * 512 + 9 * 16 * classes + classes
    return total + sum(9 * wide * out + 9 * out**2 + 4 * out for wide, out in steps)


def test_base_is_the_reference_size():
    with torch.device("meta"):
        network = kvseg_monai.TransUNet(3, 9, 224, attention="qkv", size="base")
    encoder = resnet_parameters(3) + vit_b_parameters(224 // 16)
    assert count(network.encoder.transformer.blocks) == 85_054_464  # 12 * 7_087_872, the ViT-B of the paper
    assert (count(network.encoder), count(network.decoder)) == (encoder, decoder_parameters(9))
    assert count(network) == pytest.approx(105.28e6, rel=0.005)  # what is reported of the official code


def test_encoder_publishes_what_it_returns():
    network = kvseg_monai.TransUNet(2, 4, 32, size="tiny").eval()
    with torch.no_grad():
        maps = network.encoder(torch.rand(1, 2, 32, 48))
    assert tuple(m.shape[1] for m in maps) == network.encoder.channels == (32, 128, 256, 192)
    assert tuple(32 // m.shape[2] for m in maps) == tuple(48 // m.shape[3] for m in maps) == network.encoder.strides


def test_reference_resnet_has_32_groups_and_strides_to_16():
    resnet = ResNetV2(1)
    grouped = {m.num_groups for m in resnet.modules() if isinstance(m, torch.nn.GroupNorm)}
    assert grouped == {32, 256, 512, 1024}  # the shortcuts are normed channel by channel
    assert (resnet.channels, resnet.strides) == ((64, 256, 512, 1024), (2, 4, 8, 16))


def test_standardised_weights_ignore_scale_and_offset():
    torch.manual_seed(0)
    layer, x = StandardisedConv2d(3, 4, 3, padding=1, bias=False).double(), torch.rand(1, 3, 8, 8).double()
    weight = layer.weight.detach().clone()
    standard = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True, correction=0)
    expected = torch.nn.functional.conv2d(x, standard, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-2, rtol=1e-2)  # up to the epsilon
    with torch.no_grad():
        layer.weight.copy_(100 * weight + 7)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_decoder_wants_a_width_per_step():
    with pytest.raises(ValueError, match="channels has 3 numbers; at stride 16 it needs 5"):
        UNetDecoder((8, 16), (4, 16), 2, channels=(8, 8, 8))
