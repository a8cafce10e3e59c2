"""Building blocks: composed attention, its positional parts, the transformer block, convolutions."""

from kvseg_monai.blocks.attention import ATTENTION_KINDS, Attention, LinearProjection, Subsample, build_attention
from kvseg_monai.blocks.convolution import ConvNormReLU, upsample
from kvseg_monai.blocks.cvt import ConvEmbedding, ConvProjection
from kvseg_monai.blocks.linear import MLP, Linear
from kvseg_monai.blocks.parameter_groups import parameter_groups, query_biases
from kvseg_monai.blocks.position import KeyBias, RelativePosition
from kvseg_monai.blocks.transformer import PatchEmbedding, TransformerBlock

__all__ = [
    "ATTENTION_KINDS",
    "MLP",
    "Attention",
    "ConvEmbedding",
    "ConvNormReLU",
    "ConvProjection",
    "KeyBias",
    "Linear",
    "LinearProjection",
    "PatchEmbedding",
    "RelativePosition",
    "Subsample",
    "TransformerBlock",
    "build_attention",
    "parameter_groups",
    "query_biases",
    "upsample",
]
