"""The grids that the quantizers put weights on, and weights rounded to them as training sees them.

A grid is symmetric: a weight is a small whole number times the scale of its row, or of its block in the row.
Rounding is idempotent: what lies on the grid gives the same scales again, so a quantizer that meets rounded
weights reproduces them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

# No scale is smaller (ai-edge-quantizer's bound): a row of zeros stays one.
TINY = 1e-9


@dataclass(frozen=True)
class Grid:
    """`bits` a weight, and a scale for each row (output channel, or token of an embedding), or with `block`
    for each `block` neighbours in a row.

    By row, the largest magnitude is 2^(bits-1) - 1: LiteRT's weights, and ONNX Runtime's int8 ones. By block
    it is -2^(bits-1): ONNX Runtime's MatMulNBits.
    """

    bits: int
    block: int | None = None


def rounded(weight: "torch.Tensor", grid: Grid) -> "torch.Tensor":
    """`weight` (rows, width) on the grid, in its own dtype."""
    whole, scale = parts(weight, grid)
    return (whole * scale).reshape(len(weight), -1)[:, : weight.shape[1]]


def parts(weight: "torch.Tensor", grid: Grid) -> "tuple[torch.Tensor, torch.Tensor]":
    """Whole numbers (rows, blocks, block) and scales (rows, blocks, 1); one block where scales go by row.

    The last block is filled up with zeros.
    """
    import torch
    from torch.nn import functional as F

    size = grid.block or weight.shape[1]
    blocks = F.pad(weight, (0, -weight.shape[1] % size)).view(len(weight), -1, size)
    most = 2 ** (grid.bits - 1)
    if grid.block is None:
        scale = blocks.abs().amax(-1, keepdim=True).clamp_min(TINY) / (most - 1)
        return (blocks / scale).round(), scale
    high, low = blocks.amax(-1, keepdim=True), blocks.amin(-1, keepdim=True)
    scale = torch.where(high > -low, high, low) / -most
    return torch.where(scale == 0, 0.0, blocks / scale).round().clamp(-most, most - 1), scale


def straight_through(grid: Grid) -> Any:
    """A parametrization (torch.nn.utils.parametrize): the module computes with rounded weights, and gradients
    reach the weights behind them as if nothing was rounded (Bengio et al. 2013, arXiv 1308.3432; Jacob et al.
    2018, arXiv 1712.05877)."""
    import torch

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, weight: torch.Tensor) -> torch.Tensor:
            return rounded(weight, grid)

        @staticmethod
        def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return gradient

    class Rounded(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return Round.apply(weight)  # type: ignore[no-any-return,no-untyped-call]

    return Rounded()


def clipped(weight: "torch.Tensor", grid: Grid, steps: int = 20) -> "torch.Tensor":
    """`weight` with its outliers drawn in, row by row (block by block), to where rounding errs least.

    The largest magnitude is tried at 1, ..., 1/2 of itself in `steps` steps, by the mean squared error.
    """
    import torch
    from torch.nn import functional as F

    size = grid.block or weight.shape[1]
    blocks = F.pad(weight, (0, -weight.shape[1] % size)).view(-1, size)
    most, best, least = blocks.abs().amax(-1, keepdim=True), blocks, torch.full((len(blocks), 1), torch.inf)
    row = Grid(grid.bits, grid.block and size)
    for step in range(steps + 1):
        limit = most * (1 - step / (2 * steps))
        drawn = blocks.clamp(-limit, limit)
        error = (rounded(drawn, row) - blocks).square().mean(-1, keepdim=True)
        best = torch.where(error < least, drawn, best)
        least = torch.minimum(error, least)
    return best.reshape(len(weight), -1)[:, : weight.shape[1]]


def row_scales(weight: "np.ndarray", bits: int) -> "np.ndarray | None":
    """The scales float32 (rows, 1) of a weight (rows, width) on the row grid; None where it is not on it.

    A quantizer with finer blocks takes these for all blocks of a row, so that a checkpoint trained for one
    engine's grid is exact on the other's.
    """
    import numpy as np

    most = 2 ** (bits - 1) - 1
    scale = np.maximum(np.abs(weight).max(1, keepdims=True), TINY).astype(np.float32) / np.float32(most)
    off = np.abs(np.rint(weight / scale) * scale - weight)
    return scale if (off <= 1e-3 * scale).all() else None
