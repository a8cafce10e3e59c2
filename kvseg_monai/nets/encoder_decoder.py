"""The form of every network here: an encoder, a decoder, and a check of the image's size in front."""

import torch
from torch import Tensor, nn

from kvseg_monai.nets.checks import multiple_of


class EncoderDecoder(nn.Module):
    """Image -> encoder -> feature maps -> decoder -> logits.

    Args:
        encoder: maps (B, in_channels, H, W) to a list of feature maps, shallowest first, and publishes ``stride``,
            of which H and W must be multiples.
        decoder: maps that list to logits (B, out_channels, H, W).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.stride = int(encoder.stride)  # type: ignore[arg-type]  # a module's attribute
        self.decoder = decoder

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        if not (torch.jit.is_scripting() or torch.jit.is_tracing()):
            multiple_of(image.shape[2:], self.stride)
        return self.decoder(self.encoder(image))
