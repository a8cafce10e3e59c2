"""SETR: a vision transformer encoder and a convolutional decoder (Zheng et al., CVPR 2021, arXiv 2012.15840)."""

from collections.abc import Sequence

from kvseg_monai.errors import InputError
from kvseg_monai.nets.checks import choose, image_size
from kvseg_monai.nets.encoder_decoder import EncoderDecoder
from kvseg_monai.nets.setr_decoders import DECODERS
from kvseg_monai.nets.vit import ViTEncoder

# size -> hidden size, blocks, heads, channels of the decoder; base is ViT-B with the paper's decoder
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 192, "num_layers": 6, "num_heads": 3, "decoder_channels": 64},
    "small": {"hidden_size": 384, "num_layers": 12, "num_heads": 6, "decoder_channels": 128},
    "base": {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "decoder_channels": 256},
}


class SETR(EncoderDecoder):
    """Segmentation transformer with a choice of attention, size and decoder.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        img_size: side, or (height, width), in pixels, for which positions are learned: multiples of ``patch_size``.
            The trained network takes any other such size too.
        attention: ``qkv``, ``kv``, ``kv_pos``, ``kv_rel``, ``qk`` or ``k`` (see ``kvseg_monai.blocks.attention``).
        size: ``tiny``, ``small`` or ``base`` (the paper's encoder, ViT-B/16).
        decoder: ``naive``, ``pup`` or ``mla``.
        patch_size: pixels per token and side: a power of two from 2 on.
        dropout: rate in the encoder, in training only.

    Raises:
        ValueError: for an unknown name, or a size that is not a multiple of the patch size.

    The paper's auxiliary heads, used in training only, are left out.

    Examples:
        >>> import torch
        >>> network = SETR(in_channels=1, out_channels=4, img_size=64, attention="kv", size="tiny")
        >>> network(torch.zeros(2, 1, 64, 96)).shape  # logits, also of another size than it was built for
        torch.Size([2, 4, 64, 96])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int],
        *,
        attention: str = "kv",
        size: str = "base",
        decoder: str = "pup",
        patch_size: int = 16,
        dropout: float = 0.0,
    ) -> None:
        choose("size", size, PRESETS)
        choose("decoder", decoder, DECODERS)
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise InputError(f"patch_size is {patch_size}; it must be a power of two: 2, 4, 8, 16 or 32")
        preset = dict(PRESETS[size])
        decoder_channels = preset.pop("decoder_channels")
        levels = DECODERS[decoder].LEVELS
        encoder = ViTEncoder(
            in_channels,
            image_size(img_size, patch_size),
            attention=attention,
            patch_size=patch_size,
            out_layers=[round(preset["num_layers"] * (level + 1) / levels) for level in range(levels)],
            dropout=dropout,
            **preset,
        )
        super().__init__(
            encoder,
            DECODERS[decoder](encoder.channels, out_channels, channels=decoder_channels, stride=encoder.stride),
        )
