"""How much slower KV+Pos is as published than in its collapsed form: ``python tests/benchmark_literal.py``.

The literal form builds an N x N x m tensor per head, m = 50; the collapsed one is a single fused call. Both take turns
within one run, at SETR-base's width of 768 with 12 heads: as the attention's core, from keys and values on, and as a
whole layer, with the three linear maps that both have. Printed are medians and the median of the ratios within a round.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from oracles import literal_kv_pos, pair_encoding
from torch import Tensor

from kvseg_monai.blocks import Attention, build_attention
from kvseg_monai.cost.timing import time_in_turn
from kvseg_monai.utils.provenance import commit, machine

HIDDEN_SIZE, NUM_HEADS = 768, 12


class Forms:
    """Both forms of one attention of kind ``kv_pos``, on the same random tokens.

    Args:
        side: of the square grid of tokens.
    """

    def __init__(self, side: int) -> None:
        self.grid = (side, side)
        self.attention: Attention = build_attention("kv_pos", HIDDEN_SIZE, NUM_HEADS, grid=self.grid).eval()
        self.pairs = pair_encoding(side**2, len(self.attention.position.weight)).float()
        self.tokens = torch.rand(1, side**2, HIDDEN_SIZE)
        self.key, self.value = self._project()

    def _project(self) -> tuple[Tensor, Tensor]:
        projections = (self.attention.key, self.attention.value)
        return tuple(self.attention._heads(project(self.tokens, self.grid)) for project in projections)

    def core(self) -> Tensor:
        """Collapsed, from keys and values on: (1, h, N, D)."""
        position, scale = self.attention.position, self.attention.scale
        query, key, value, mask = position(self.key, self.key, self.value, grid=self.grid, scale=scale)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)

    def literal_core(self) -> Tensor:
        """As published, from keys and values on."""
        return self._literal(self.key, self.value)

    def layer(self) -> Tensor:
        """Collapsed, the whole layer: (1, N, C)."""
        return self.attention(self.tokens, self.grid)

    def literal_layer(self) -> Tensor:
        """As published, the whole layer."""
        return self.attention.output(self._literal(*self._project()).transpose(1, 2).flatten(2))

    def _literal(self, key: Tensor, value: Tensor) -> Tensor:
        weight, scale = self.attention.position.weight, self.attention.scale
        return literal_kv_pos(key, value, weight, torch.zeros(()), pairs=self.pairs, scale=scale)


@torch.no_grad()
def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python tests/benchmark_literal.py", description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=16, help="of the square token grid (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=50, help="measured rounds (default: %(default)s)")
    options = parser.parse_args()
    forms = Forms(options.side)
    torch.testing.assert_close(forms.literal_layer(), forms.layer())
    names = ("core", "literal_core", "layer", "literal_layer")
    seconds = time_in_turn({name: getattr(forms, name) for name in names}, rounds=options.repeats, title="KV+Pos")
    for part in ("core", "layer"):
        literal, collapsed = seconds[f"literal_{part}"], seconds[part]
        print(
            f"{part}: literal {1e3 * np.median(literal):.2f} ms, collapsed {1e3 * np.median(collapsed):.2f} ms, "
            f"ratio {np.median(literal / collapsed):.1f}"
        )
    print(
        f"{options.side**2} tokens, hidden_size {HIDDEN_SIZE}, {NUM_HEADS} heads; medians of {options.repeats} rounds"
    )
    print(f"commit {commit() or 'unknown'}, {machine()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
