"""SETR's contract: sizes, shapes, gradients, export, and the checks of what users hand in."""

import pytest
import torch
from net_contract import SIDE, NetContract, assert_every_parameter_gets_a_gradient, count, every_kind, image

from kvseg_monai.nets.setr import PRESETS
from kvseg_monai.nets.setr_decoders import DECODERS

every_decoder = pytest.mark.parametrize("decoder", DECODERS)


class TestSETR(NetContract):
    NET = "SETR"
    GOLDEN = {"qkv": (-0.013457, 0.067167), "kv": (-0.024241, 0.070885), "kv_pos": (-0.024239, 0.070868)}

    def saved_by_kv(self, size):
        channels = PRESETS[size]["hidden_size"]
        return self.num_blocks(size) * (channels**2 + channels)

    def num_blocks(self, size):
        return PRESETS[size]["num_layers"]

    @every_decoder
    @pytest.mark.parametrize("size", [(64, 64), (96, 32), (16, 144)])
    def test_any_decoder_gives_logits_of_the_input_size(self, decoder, size):
        with torch.no_grad():
            assert self.build(decoder=decoder).eval()(image(*size)).shape == (2, 4, *size)

    @every_decoder
    @pytest.mark.parametrize("patch_size", [4, 8])
    def test_smaller_patches(self, decoder, patch_size):
        with torch.no_grad():
            assert self.build(decoder=decoder, patch_size=patch_size).eval()(image(32, 48)).shape == (2, 4, 32, 48)

    @every_kind
    @pytest.mark.parametrize("decoder", ["naive", "mla"])
    def test_every_parameter_of_the_other_decoders_gets_a_gradient(self, kind, decoder):
        assert_every_parameter_gets_a_gradient(self.build(attention=kind, decoder=decoder))

    def test_the_share_that_kv_saves(self):
        encoder = self.build(attention="qkv").encoder
        linear = sum(w.numel() for w in encoder.blocks.parameters() if w.ndim == 2)
        saved = len(encoder.blocks) * encoder.channels[0] ** 2
        assert saved / linear == pytest.approx(1 / (4 + 2 * 4))  # 1 / (4 + 2 r), r = 4

    def test_mla_reads_the_papers_layers(self):
        with torch.device("meta"):
            assert self.build(size="base", decoder="mla").encoder.out_layers == [3, 6, 9, 12]

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"decoder": "unet"}, "decoder is 'unet'; it must be one of naive, pup, mla"),
            ({"patch_size": 12}, "patch_size is 12; it must be a power of two"),
        ],
    )
    def test_its_own_options_are_refused_with_what_is_allowed(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            self.build(**options)


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
    with torch.device("meta"):
        network = TestSETR().build(attention="qkv", size="base", decoder=decoder)
    norms = 2 * 768 * DECODERS[decoder].LEVELS
    assert count(network.encoder) == vit_b16_parameters(1, SIDE // 16) + norms
    assert count(network.decoder) == decoder_parameters
