"""Key-Value forms of MONAI's own self-attention modules, with the interface of the module that each replaces.

Shapes: B batch, N tokens, C = hidden_size, h heads, D = head_dim; windows count as batch.

The key is its own query, softmax(K K^T / sqrt(D) + bias) V (Borji, arXiv 2305.19129), everything else is as in the
source: masks, biases, output projection, dropout. Dropout acts in training only; MONAI's ``SABlock`` with
``use_flash_attention`` applies it to the attention weights in evaluation too, which is not taken over.
"""

import torch
import torch.nn.functional as F
from monai.networks.blocks import SABlock
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, N, h * D) -> (B, h, N, D)


def _add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _forbid(allowed: Tensor, like: Tensor) -> Tensor:
    """Turn a mask, true where attention is allowed, into logits to add."""
    return like.new_zeros(allowed.shape).masked_fill(allowed == 0, float("-inf"))


class KeyValueSABlock(nn.Module):
    """Key-Value form of MONAI's ``SABlock``; its output projection and relative position are taken over.

    One fused ``scaled_dot_product_attention``, except with ``save_attn``, which needs the attention matrix itself. A
    relative position, which in the source adds query-dependent logits, becomes a mask whose queries are the keys.

    Args:
        source: the block that this one replaces.
        key: projection C -> h * D.
        value: likewise.
        position: positional part (see :mod:`kvseg_monai.blocks.position`); None adds no position.
    """

    def __init__(self, source: SABlock, *, key: nn.Linear, value: nn.Linear, position: nn.Module | None = None) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = source.num_heads, source.dim_head, source.scale
        self.key, self.value, self.position = key, value, position
        self.rel_positional_embedding = source.rel_positional_embedding
        self.out_proj = source.out_proj if getattr(source, "include_fc", True) else nn.Identity()  # idle in monai 1.4
        self.drop_output = source.drop_output
        self.dropout = source.drop_weights.p
        self.causal, self.save_attn, self.attention_dtype = source.causal, source.save_attn, source.attention_dtype
        self.use_flash_attention = getattr(source, "use_flash_attention", False)  # here: what attn_mask means
        self.att_mat = torch.Tensor()

    def _bias(self, query: Tensor, attn_mask: Tensor | None) -> Tensor | None:
        """Return the logits that relative position and mask add, broadcastable to (B, h, N, N)."""
        bias = None
        if self.rel_positional_embedding is not None:
            empty = query.new_zeros(*query.shape[:3], query.shape[2])  # (B, h, N, N)
            bias = self.rel_positional_embedding(query, empty, query)
        if attn_mask is None:
            return bias
        if not self.use_flash_attention:
            return _add(bias, _forbid(attn_mask[:, None, None], query))  # (B, N) of keys -> (B, 1, 1, N)
        return _add(bias, _forbid(attn_mask, query) if attn_mask.dtype == torch.bool else attn_mask)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        if self.causal and (bias is not None or self.save_attn):
            tokens = query.shape[2]
            past = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()
            bias = _add(bias, _forbid(past, query))
        dropout = self.dropout if self.training else 0.0
        if not self.save_attn:
            causal = self.causal and bias is None
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, dropout_p=dropout, is_causal=causal, scale=self.scale
            )
        logits = query @ key.transpose(-1, -2) * self.scale
        weights = (logits if bias is None else logits + bias).softmax(-1)
        self.att_mat = weights.detach()
        return F.dropout(weights, dropout, self.training) @ value

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Attend over tokens, (B, N, C) -> (B, N, C).

        Args:
            x: the tokens.
            attn_mask: (B, N), zero for keys to leave out; where the source was built with ``use_flash_attention``,
                whatever ``scaled_dot_product_attention`` takes, as there.

        Raises:
            ValueError: for a mask on causal attention.
        """
        if self.causal and attn_mask is not None:
            raise ValueError("attn_mask is given, but this attention is causal; leave the mask out")
        query, value = _split_heads(self.key(x), self.num_heads), _split_heads(self.value(x), self.num_heads)
        dtype = value.dtype
        if self.attention_dtype is not None:
            query, value = query.to(self.attention_dtype), value.to(self.attention_dtype)
        key, bias = query, self._bias(query, attn_mask)
        if self.position is not None:
            query, key, value, mask = self.position(query, key, value, grid=(1, x.shape[1]), scale=self.scale)
            bias = _add(bias, mask)
        mixed = self._attend(query, key, value, bias)[..., : self.head_dim]
        return self.drop_output(self.out_proj(mixed.transpose(1, 2).flatten(2).to(dtype)))  # (B, h, N, D) -> (B, N, C)


class KeyValueWindowAttention(nn.Module):
    """Key-Value form of Swin's ``WindowAttention``, in 2D and 3D; its position bias table is taken over.

    One fused ``scaled_dot_product_attention`` in training too; table and shifted-window mask are its mask.

    Args:
        source: the module that this one replaces.
        key: projection C -> C.
        value: likewise.
    """

    def __init__(self, source: WindowAttention, *, key: nn.Linear, value: nn.Linear) -> None:
        super().__init__()
        self.num_heads, self.scale, self.window_size = source.num_heads, source.scale, source.window_size
        self.key, self.value = key, value
        self.relative_position_bias_table = source.relative_position_bias_table
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", source.relative_position_index)
        self.proj, self.proj_drop = source.proj, source.proj_drop
        self.dropout = source.attn_drop.p

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within windows, (B, N, C) -> (B, N, C).

        Args:
            x: the tokens of each window; the windows of one image follow each other.
            mask: (windows per image, N, N), added to the logits; None for windows that are not shifted.
        """
        key, value = _split_heads(self.key(x), self.num_heads), _split_heads(self.value(x), self.num_heads)
        tokens = x.shape[1]
        index = self.relative_position_index[:tokens, :tokens]
        bias = self.relative_position_bias_table[index.flatten()].unflatten(0, (tokens, tokens))  # (N, N, h)
        bias = bias.permute(2, 0, 1)[None]  # (1, h, N, N)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(x.shape[0] // mask.shape[0], 1, 1, 1)  # (B, h, N, N)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            key, key, value, attn_mask=bias.to(key.dtype), dropout_p=dropout, scale=self.scale
        )
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))  # (B, h, N, D) -> (B, N, C)
