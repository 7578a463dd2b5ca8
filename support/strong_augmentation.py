"""Pens, bending, stretching, few pixels and drawn forms: what only the recipe `robust` needs."""
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

SIZE = 28  # pixels a side


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
    moves = random_moves(len(images), SIZE, ranges.elastic, generator)
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


# MNIST was written in the United States, and has few or none of these, which others write. A form
# is strokes from point to point: (x, y) in tenths of the height, from the top left.
FORMS = (
    (1, [[(2, 0), (2, 10)]]),  # a plain stroke: *other* has strokes, too
    (1, [[(1, 4), (5, 0), (5, 10)]]),  # with a flag
    (1, [[(1, 4), (5, 0), (5, 10)], [(2, 10), (8, 10)]]),  # and a foot
    (2, [[(1, 2.5), (2, .5), (4, .5), (5, 3), (1.5, 9.5), (8, 10)]]),  # with a long foot
    (3, [[(1, 0), (7, 0), (4, 4), (6.5, 5), (7, 7), (6, 9.5), (3, 10), (0, 9)]]),  # flat on top
    (4, [[(4, 0), (0, 6.5), (8, 6.5)], [(5.5, 4), (5, 10)]]),  # with a short upright
    (4, [[(4.5, 0), (0.5, 7.5), (9, 8)], [(6.5, 6), (6, 10)]]),  # and a shorter one
    (5, [[(8, 0), (3, .5), (2, 4), (6, 4.5), (6, 6.5), (2, 10)]]),  # slanted, its end straight
    (6, [[(8, 0), (3, .5), (1, 4), (1, 8), (3, 10), (6, 9.5), (7, 7.5), (5, 5.5), (1, 6)]]),
    (7, [[(0, 0), (7, 0), (3, 10)], [(1, 5), (7, 5)]]),  # crossed
    (7, [[(0, 2), (0, 0), (7, 0), (3, 10)], [(1, 5), (7, 5)]]),  # and with a hook
    (7, [[(-1, 4), (0, 2.5), (5, 3.5), (8, 2), (7.5, -.5), (5.5, 0), (5, 4), (5, 11)]]),  # looped
    (8, [[(6, 1.5), (4, 0), (2, 1.5), (3, 3.5), (6, 6), (6, 9), (3, 10), (1, 8), (2, 5.5),
          (6, 1.5)]]),  # in one stroke, the upper loop small
    (9, [[(6, 2), (5, .5), (2, .5), (.5, 2), (2, 4.5), (5, 4.5), (6.5, 1.5), (6.5, 6.5), (5, 9.5),
          (2.5, 10), (0, 9.5)]]),  # with a long hook
)


def draw_form(strokes, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` digits of one form, (count, H, W) uint8, as large and placed as MNIST's. Each has its
    points moved, its own width, and its own pen, at random."""
    device = generator.device

    def uniform(low, high, *shape):
        u = torch.rand(count, *shape, generator=generator, device=device)
        return low + (high - low) * u
    points = torch.tensor(sum(strokes, []), dtype=torch.float32, device=device)  # (P, 2)
    points = points + uniform(-1, 1, len(points), 2)
    points[..., 0] *= uniform(0.6, 1.1, 1)
    pen = uniform(1.5, 3.5, 1)  # pixels
    longer_side = (points.amax(1) - points.amin(1)).amax(1, keepdim=True)
    points *= ((20 - pen) / longer_side).unsqueeze(2)
    lasts = np.cumsum([len(stroke) for stroke in strokes]) - 1  # where the pen is lifted
    firsts = [i for i in range(lasts[-1]) if i not in lasts]
    a, b = points[:, firsts], points[:, [i + 1 for i in firsts]]  # ends of segments, (count, S, 2)
    length = (b - a).norm(dim=2, keepdim=True)
    centre = ((a + b) / 2 * length).sum(1, keepdim=True) / length.sum(1, keepdim=True)  # of mass
    pixel = torch.cartesian_prod(*[torch.arange(SIZE, device=device)] * 2).flip(1)  # x, y
    a, along = (a - centre).unsqueeze(1), (b - a).unsqueeze(1)
    to = (pixel - (SIZE - 1) / 2).unsqueeze(1) - a  # (count, H * W, S, 2)
    part = ((to * along).sum(3, keepdim=True) / length.unsqueeze(1) ** 2).clamp(0, 1)
    away = (to - part * along).norm(dim=3).amin(2)  # of a pixel from the nearest segment
    ink = (pen / 2 + 0.5 - away).clamp(0, 1)
    return (255 * ink).byte().view(count, SIZE, SIZE)


def with_forms(images: torch.Tensor, labels: torch.Tensor, count: int, generator) -> tuple:
    """(N, H, W) uint8 images and their labels, with `count` drawn digits of each form."""
    drawn = [draw_form(strokes, count, generator) for _, strokes in FORMS]
    digits = torch.tensor([digit for digit, _ in FORMS], device=labels.device)
    return torch.cat([images, *drawn]), torch.cat([labels, digits.repeat_interleave(count)])
