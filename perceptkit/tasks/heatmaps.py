"""Heat maps: from points to Gaussian targets and back to sub-pixel points.

A cell of a heat map covers STRIDE x STRIDE input pixels. Pixel column i has its centre at x = i and cell
column j at j, so that

    cell = (pixel + 0.5) / STRIDE - 0.5        pixel = (cell + 0.5) * STRIDE - 0.5

Sub-pixel decoding fits a parabola through the *logarithm* of three neighbouring heat values per axis. The
logarithm of a Gaussian is a parabola, so a perfectly rendered Gaussian is found exactly: with d = log heat,

    offset = (d[+1] - d[-1]) / (2 * (2 d[0] - d[+1] - d[-1]))

(Zhang et al. *Distribution-Aware Coordinate Representation for Human Pose Estimation.* CVPR 2020,
https://arxiv.org/abs/1910.06278, with a diagonal Hessian: our Gaussians are round.)

Shapes: ... any leading dimensions, h w cells, 2 = (x, y).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

STRIDE = 4
"""Input pixels per heat map cell."""


def to_cells(pixels: Tensor) -> Tensor:
    """Input pixel coordinates as heat map coordinates."""
    return (pixels + 0.5) / STRIDE - 0.5


def to_pixels(cells: Tensor) -> Tensor:
    """Heat map coordinates as input pixel coordinates."""
    return (cells + 0.5) * STRIDE - 0.5


def radius_px(radius: float | None, output: Tensor) -> float:
    """Pixels within which a point counts as found: as given, or 5 % of the input's longer side."""
    return radius if radius is not None else 0.05 * STRIDE * max(output.shape[-2:])


def log_gaussians(xy_cells: Tensor, size_hw: tuple[int, int], sigma: float) -> Tensor:
    """log of exp(-d^2 / (2 sigma^2)) around each point.

    Args:
        xy_cells: (..., 2) points in cells, fractions allowed.
        size_hw: Size of the maps in cells.
        sigma: Standard deviation in cells.

    Returns:
        (..., h, w), 0 at the point and negative elsewhere.
    """
    rows_h = torch.arange(size_hw[0], device=xy_cells.device, dtype=xy_cells.dtype)
    columns_w = torch.arange(size_hw[1], device=xy_cells.device, dtype=xy_cells.dtype)
    dy2 = (rows_h - xy_cells[..., 1:]).square()
    dx2 = (columns_w - xy_cells[..., :1]).square()
    return -(dy2[..., :, None] + dx2[..., None, :]) / (2 * sigma**2)


def refine(log_heat: Tensor, cell: Tensor) -> Tensor:
    """Sub-cell positions of maxima by a parabola through the log heat, one per axis.

    At the border of the map, and where the three values are not concave, the axis keeps the cell's centre.

    Args:
        log_heat: (..., h, w) maps.
        cell: (..., P) flat index row * w + column of P maxima in each map.

    Returns:
        (..., P, 2) x, y in cells, at most half a cell from the maximum's centre.
    """
    h, w = log_heat.shape[-2:]
    flat = log_heat.flatten(-2)
    row, column = cell // w, cell % w
    centre = flat.gather(-1, cell)

    def offset(position: Tensor, last: int, step: int) -> Tensor:
        inside = (position > 0) & (position < last)
        before = flat.gather(-1, torch.where(inside, cell - step, cell))
        after = flat.gather(-1, torch.where(inside, cell + step, cell))
        bend = 2 * centre - before - after
        shift = (after - before) / (2 * bend.clamp(min=1e-6))
        return torch.where(inside & (bend > 1e-6), shift, 0.0).clamp(-0.5, 0.5)

    return torch.stack((column + offset(column, w - 1, 1), row + offset(row, h - 1, w)), dim=-1)


def peaks(log_heat: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The strongest local maxima (3x3) of each map, refined to sub-cell positions.

    Args:
        log_heat: (B, K, h, w) maps.
        most: Largest number of maxima per map.

    Returns:
        xy in cells (B, K, P, 2) and log heat (B, K, P), strongest first, P = min(most, h * w); the log heat
        is -inf in the rows that a map with fewer maxima leaves over.
    """
    is_maximum = log_heat == F.max_pool2d(log_heat, 3, stride=1, padding=1)
    candidates = log_heat.masked_fill(~is_maximum, -torch.inf).flatten(2)
    score, cell = candidates.topk(min(most, candidates.shape[2]), dim=2)
    return refine(log_heat, cell), score
