"""Pens, bending, stretching, few pixels: augmentation that only the recipe `robust` needs."""
from dataclasses import dataclass

from support.mnist_style import SIDE

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Strong:
    """Ranges of the changes that a training image goes through, besides the affine ones; 0 is
    none."""
    pen: float = 0  # up to 1: strokes a pixel thicker on each side, or as much blurred
    elastic: float = 0  # bending: standard deviation in pixels of the moves of a grid of 5×5 points
    stretch: float = 0  # up to 1: widened or heightened until it fills a square
    coarse: float = 0  # probability of being seen through 10×10 or 14×14 pixels


def distort(images: torch.Tensor, matrices: torch.Tensor, ranges: Strong,
            generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (B, H, W), the affine matrices (B, 2, 3) that they are read through, and the moves
    (B, H, W, 2) of each pixel, for `train.apply_affine`: each changed at random."""
    matrices = stretch(images, matrices, ranges.stretch, generator)
    images = random_pen(images.float(), ranges.pen, generator)
    moves = random_moves(len(images), SIDE, ranges.elastic, generator)
    return images, matrices, moves


def stretch(images: torch.Tensor, matrices: torch.Tensor, most: float, generator) -> torch.Tensor:
    """`matrices` (B, 2, 3) of `random_affine`, changed so that the digits of (B, H, W), light on
    black, are drawn wider, or higher, up to a square of 20×20 pixels but at most some three times:
    other data sets and forms distort what they collect so. Half of the images stay as they are."""
    ink = images > 50
    size = torch.stack([ink.any(axis).sum(1) for axis in (1, 2)], 1).clamp(7, 20)  # x, y
    part = torch.rand(len(images), 1, generator=generator, device=images.device) * 2 - 1
    zoom = (20 / size) ** (most * part.clamp(0))
    return matrices / zoom.unsqueeze(2)


def random_moves(count: int, size: int, deviation: float, generator) -> torch.Tensor:
    """Smooth random moves (count, size, size, 2) for `apply_affine`, interpolated from 5×5 points
    (elastic distortion: Simard, Steinkraus and Platt, 2003)."""
    points = torch.randn(count, 2, 5, 5, generator=generator, device=generator.device)
    points *= 2 * deviation / size
    moves = F.interpolate(points, size, mode="bicubic", align_corners=True)
    return moves.permute(0, 2, 3, 1)


def random_pen(images: torch.Tensor, most: float, generator) -> torch.Tensor:
    """(B, H, W) float images, each blended with itself either thicker, as of a broad pen, or
    blurred, as of a coarse camera. Thinner strokes are not needed: `mnist_style.draw` thickens
    them."""
    images = images.unsqueeze(1)
    u = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device) * 2 - 1
    thick = F.max_pool2d(images, 3, stride=1, padding=1)
    soft = (1.5 * F.avg_pool2d(images, 5, stride=1, padding=2)).clamp(max=255)
    return torch.lerp(images, torch.where(u > 0, thick, soft), most * u.abs()).squeeze(1)


def random_coarse(images: torch.Tensor, probability: float, generator) -> torch.Tensor:
    """(B, H, W) float images, some of them as seen through 10×10 or 14×14 pixels, enlarged as
    `ink.soft_candidates` does it."""
    u = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
    images = images.unsqueeze(1)
    for least, size in ((0, 10), (0.5, 14)):
        few = F.interpolate(images, size, mode="area")
        few = F.interpolate(few, images.shape[-1], mode="bilinear", align_corners=False)
        chosen = (least * probability < u) & (u < (least + 0.5) * probability)
        images = torch.where(chosen, few, images)
    return images.squeeze(1)
