r"""The key that stands in best for a trained query and key, in closed form, for their weights alone or on given tokens.

Shapes: h heads, D = head_dim, C = hidden_size (one more with a bias, see
:func:`kvseg_monai.conversion.warm_start.homogeneous`).

*For the weights alone.* Attention with a query sees the logits x_i^T M x_j with M = Wq^T Wk; without one it sees
x_i^T P x_j with P = W^T W, which is symmetric and has no negative eigenvalue. The P nearest to M in the Frobenius norm
keeps the positive eigenpairs (L, U) of S = (M + M^T) / 2, so that W = sqrt(L) U^T. What is lost is M's antisymmetric
part and the negative eigenvalues of S, three quarters of ||M||^2 for random weights. The rank D of W loses nothing: S =
(Wq^T Wk + Wk^T Wq) / 2 never has more than D positive eigenvalues.

*On tokens* x = mean + R w, w of mean 0 and covariance 1, R of (C, C). On [w, 1] the logits are w_i^T M w_j + g^T w_j +
terms without w_j, which the softmax over the keys j cancels. So what counts is g, what a key is worth to the average
query, and M, what it is worth to this one; the fit above spends itself on the cancelled terms and on directions that
no token takes. Without a query the logits have w_i^T g too, which cancels, and a constant, the level t, which is
therefore free: the fit is the best one of rank D to (M + M^T) / 2 bordered by g and t. Both parts are our choice.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-4  # of the mean variance: a direction that varies less is damped where it is divided by
LEVEL = 4.0  # times |g|: less spoils M, more needs a more exact constant than a key without a bias has


def closest_key(query: Tensor, key: Tensor) -> tuple[Tensor, float]:
    r"""Find W (h, D, C) with W^T W nearest to query^T key, head by head.

    S acts within the at most 2D directions that the rows of query and key span, so its eigenvectors are those of a
    (2D, 2D) matrix in an orthonormal basis of them.

    Where S has fewer than D positive eigenvalues the other rows of W are zero. Such a row adds nothing to the logits
    and never will: they are quadratic in it, so its gradient is zero too. It takes a rank-deficient M, or one with a
    negative part as for Wk = -Wq, for which all rows are zero and each token attends evenly to all.

    Args:
        query: Wq per head, (h, D, C), in float64.
        key: Wk per head, likewise.

    Returns:
        W, and the relative fit error ||M - W^T W|| / ||M|| over all heads. With biases M also holds terms that are
        constant for each query, which a softmax cancels: the attention maps may be nearer than the error says.
    """
    head_dim = query.shape[1]
    basis, factor = torch.linalg.qr(torch.cat((query, key), 1).mT)  # (h, C, r), (h, r, 2D), r = min(C, 2D)
    product = factor[..., :head_dim] @ factor[..., head_dim:].mT  # M in that basis, (h, r, r)
    values, vectors = torch.linalg.eigh((product + product.mT) / 2)  # ascending
    values, vectors = values[..., -head_dim:].clamp(min=0), vectors[..., -head_dim:]
    error = (product - (vectors * values[:, None]) @ vectors.mT).norm() / product.norm().clamp(min=1e-300)
    rows = ((basis @ vectors) * values.sqrt()[:, None]).mT.flip(1)  # (h, D, C), the largest eigenvalue first
    return F.pad(rows, (0, 0, 0, head_dim - rows.shape[1])), error.item()


def rotated_towards(rows: Tensor, target: Tensor) -> Tensor:
    """Rotate each head of ``rows`` (h, D, C) towards ``target``: W^T W stays, and W = target where that is possible.

    Needed where the query meets more than the key, as the tables of a relative position.
    """
    left, _, right = torch.linalg.svd(target @ rows.mT)
    return left @ right @ rows


@dataclass(frozen=True)
class Moments:
    """Mean (C,) and covariance (C, C) of tokens, in float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, second: Tensor) -> "Moments":
        """Return those of tokens x from the second moment of [x, 1], (C + 1, C + 1)."""
        mean = second[-1, :-1]
        return cls(mean, second[:-1, :-1] - torch.outer(mean, mean))

    def roots(self) -> tuple[Tensor, Tensor]:
        """Return R and its damped inverse, (C, C) each."""
        values, vectors = torch.linalg.eigh(self.covariance)
        values = values.clamp(min=0)
        damped = values + RIDGE * values.mean().clamp(min=1e-12)
        return (vectors * values.sqrt()) @ vectors.mT, (vectors / damped.sqrt()) @ vectors.mT

    def constant(self) -> Tensor:
        """Return a (C,) with a^T x nearest to 1: normalised tokens hold a constant, if one as small as their bias."""
        second = self.covariance + torch.outer(self.mean, self.mean)
        ridge = RIDGE * second.diagonal().mean().clamp(min=1e-12)
        return torch.linalg.solve(second + ridge * torch.eye(len(second)).to(second), self.mean)


def closest_key_on(tokens: Moments, query: Tensor, key: Tensor) -> tuple[Tensor, float]:
    r"""Find W whose logits are nearest to those of query and key on ``tokens``, head by head.

    Nearest in the mean square, over independent tokens, of what the softmax sees: ||M - W^T W||^2 + ||g - W^T v||^2 on
    [w, 1], where v is W of the mean token. Each head takes the best of a few levels and of the trained one, with which
    an attention whose query is its key comes out as it is.

    Args:
        tokens: what the attention meets.
        query: Wq per head, (h, D, C) in float64, or (h, D, C + 1) with a bias.
        key: Wk per head, likewise.

    Returns:
        W, shaped as ``query``, and the relative error, the root of that sum over ||M||^2 + ||g||^2, over all heads.
        Without a bias the constant part of the key is made from the tokens (:meth:`Moments.constant`).
    """
    to_tokens, from_tokens = _frames(tokens, bias=query.shape[2] > len(tokens.mean))
    query, key = query @ to_tokens, key @ to_tokens  # (h, D, C + 1)
    product = query.mT @ key[..., :-1]  # M above g, (h, C + 1, C)
    size = product[:, -1:].norm(dim=2, keepdim=True)
    own = (query[..., -1:] * key[..., -1:]).sum(1, keepdim=True)  # the trained level, (h, 1, 1)
    levels = [level.clamp(min=1e-9) for level in (own, LEVEL * size)]
    fits = torch.stack([_bordered_fit(query, key, product[:, -1:], level) for level in levels]) @ from_tokens
    seen = fits @ to_tokens  # (levels, h, D, C + 1)
    losses = (product - seen.mT @ seen[..., :-1]).square().sum((-2, -1))
    total = product.square().sum()
    error = (losses.amin(0).sum() / total).sqrt().item() if total > 0 else 0.0
    return fits[losses.argmin(0), torch.arange(len(query))], error


def _frames(tokens: Moments, *, bias: bool) -> tuple[Tensor, Tensor]:
    """Return what takes [w, 1] to x, or with ``bias`` to [x, 1], and back: (C', C + 1) and (C + 1, C')."""
    root, inverse = tokens.roots()
    forth = torch.cat((root, tokens.mean[:, None]), 1)
    one = tokens.constant()
    if bias:
        one = F.pad(torch.zeros_like(one), (0, 1), value=1.0)
        forth = torch.cat((forth, one[None]))
    centred = torch.eye(len(root), len(one)).to(root) - torch.outer(tokens.mean, one)
    return forth, torch.cat((inverse @ centred, one[None]))


def _bordered_fit(query: Tensor, key: Tensor, effect: Tensor, level: Tensor) -> Tensor:
    """Fit M bordered by ``effect`` (h, 1, C) and ``level`` (h, 1, 1): a square that holds both, less its part in M."""
    within = F.pad(effect / level.sqrt(), (0, 1))
    border = torch.cat((within[..., :-1], level.sqrt()), 2)
    query, key = (F.pad(weights[..., :-1], (0, 1)) for weights in (query, key))
    rows, _ = closest_key(torch.cat((query, border, within), 1), torch.cat((key, border, -within), 1))
    return rows[:, : query.shape[1]]
