"""Forms drawn from strokes: of digits that MNIST has few of, and of letters that are no digits."""
from support.mnist_style import SIDE

import numpy as np
import torch

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


# Letters and signs of few strokes that are no digits, so that others of their kind are none either.
# Left out is what somebody might mean as a digit: b, g, l, o, q, s, y, z, B, D, I, O, Q, S, Z.
LETTERS = (
    [[(0, 10), (4, 0), (8, 10)], [(1.5, 6.5), (6.5, 6.5)]],  # A
    [[(7.5, 2), (5, 0), (2, 1), (0, 5), (2, 9), (5, 10), (7.5, 8)]],  # C
    [[(7, 0), (0, 0), (0, 10), (7, 10)], [(0, 5), (6, 5)]],  # E
    [[(7, 0), (0, 0), (0, 10)], [(0, 5), (6, 5)]],  # F
    [[(0, 0), (0, 10)], [(7, 0), (7, 10)], [(0, 5), (7, 5)]],  # H
    [[(2, 0), (8, 0)], [(5, 0), (5, 8), (4, 10), (2, 10), (0, 8)]],  # J
    [[(0, 0), (0, 10)], [(7, 0), (0, 6)], [(2, 5), (7, 10)]],  # K
    [[(0, 0), (0, 10), (6, 10)]],  # L
    [[(0, 10), (1, 0), (4, 7), (7, 0), (8, 10)]],  # M
    [[(0, 10), (0, 0), (7, 10), (7, 0)]],  # N
    [[(0, 10), (0, 0), (5, 0), (7, 2), (5, 5), (0, 5)]],  # P
    [[(0, 10), (0, 0), (5, 0), (7, 2), (5, 5), (0, 5)], [(3, 5), (7, 10)]],  # R
    [[(0, 0), (8, 0)], [(4, 0), (4, 10)]],  # T
    [[(0, 0), (0, 7), (2, 10), (5, 10), (7, 7), (7, 0)]],  # U
    [[(0, 0), (4, 10), (8, 0)]],  # V
    [[(0, 0), (2, 10), (4, 3), (6, 10), (8, 0)]],  # W
    [[(0, 0), (8, 10)], [(8, 0), (0, 10)]],  # X
    [[(0, 0), (4, 5), (8, 0)], [(4, 5), (4, 10)]],  # Y
    [[(0, 0), (0, 10)], [(0, 6), (3, 4), (6, 5), (6, 10)]],  # h
    [[(0, 0), (0, 10)], [(5, 4), (0, 7), (5, 10)]],  # k
    [[(0, 3), (0, 10), (0, 5), (2, 3), (4, 5), (4, 10), (4, 5), (6, 3), (8, 5), (8, 10)]],  # m
    [[(0, 2), (0, 10), (0, 5), (3, 2), (6, 4), (6, 10)]],  # n
    [[(0, 0), (0, 10)], [(0, 1), (4, 0), (6, 2), (4, 5), (0, 4.5)]],  # p
    [[(0, 0), (0, 10)], [(0, 4), (2, 1), (6, 0)]],  # r
    [[(4, 0), (4, 8), (6, 10), (8, 9)], [(0, 3), (8, 3)]],  # t
    [[(0, 2), (0, 8), (3, 10), (6, 8), (6, 2), (6, 10), (8, 10)]],  # u
    [[(0, 2), (1, 9), (3, 9), (4, 4), (5, 9), (7, 9), (8, 2)]],  # w
    [[(0, 1), (2, 1), (5, 9), (7, 9)], [(7, 1), (0, 9)]],  # x
    [[(7, 0), (7, 10)], [(7, 4), (4, 2), (1, 3), (0, 6), (2, 9), (5, 9), (7, 7)]],  # a, tall
    [[(0, 6), (6, 5), (5, 2), (2, 2), (0, 5), (1, 9), (4, 10), (7, 8)]],  # e
    [[(0, 0), (0, 10)], [(0, 5), (6, 5)]],  # a bar that sticks out on the right
    [[(8, 0), (8, 10)], [(2, 5), (8, 5)]],  # and on the left
    [[(0, 5), (10, 5)], [(5, 0), (5, 10)]],  # plus
    [[(0, 3), (10, 3)], [(0, 7), (10, 7)]],  # equals
    [[(0, 0), (9, 0)], [(2, 0), (2, 10)], [(7, 0), (7, 10)]],  # pi
    [[(0, 1), (1, 5), (4, 6), (7, 5), (8, 1)], [(4, 0), (4, 10)]],  # psi
    [[(1, 0), (8, 10)], [(4.5, 5), (0, 10)]],  # lambda
    [[(4, 0), (0, 10), (8, 10), (4, 0)]],  # a triangle
    [[(0, 0), (8, 0), (8, 10), (0, 10), (0, 0)]],  # a square
    [[(8, 0), (0, 0), (4, 5), (0, 10), (8, 10)]],  # sigma, large
    [[(9, 1), (4, 1), (0, 4), (1, 8), (4, 10), (7, 8), (7, 4), (4, 1)]],  # and small
    [[(7, 1), (4, 0), (1, 2), (4, 4.5), (0, 7), (3, 10), (7, 9)]],  # epsilon
    [[(1, 3), (0, 7), (2, 10), (4, 7), (6, 10), (8, 7), (7, 3)]],  # omega
    [[(0, 0), (0, 10), (8, 10), (8, 0)], [(4, 0), (4, 10)]],  # an E that lies
    [[(4, 10), (4, 0), (0, 4)], [(4, 0), (8, 4)]],  # an arrow
    [[(4, 0), (4, 10)], [(0, 2.5), (8, 7.5)], [(8, 2.5), (0, 7.5)]],  # a star
)
OTHER = 10  # the label of what is no digit


def draw_form(strokes, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` drawings of one form, (count, H, W) uint8, as large and placed as MNIST's. Each has
    its points moved, its own width, and its own pen, at random."""
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
    pixel = torch.cartesian_prod(*[torch.arange(SIDE, device=device)] * 2).flip(1)  # x, y
    a, along = (a - centre).unsqueeze(1), (b - a).unsqueeze(1)
    to = (pixel - (SIDE - 1) / 2).unsqueeze(1) - a  # (count, H * W, S, 2)
    part = ((to * along).sum(3, keepdim=True) / length.unsqueeze(1) ** 2).clamp(0, 1)
    away = (to - part * along).norm(dim=3).amin(2)  # of a pixel from the nearest segment
    ink = (pen / 2 + 0.5 - away).clamp(0, 1)
    return (255 * ink).byte().view(count, SIDE, SIDE)


def with_forms(images: torch.Tensor, labels: torch.Tensor, count: int, generator) -> tuple:
    """(N, H, W) uint8 images and their labels, with `count` drawings of each form and letter."""
    forms = [*FORMS, *[(OTHER, strokes) for strokes in LETTERS]]
    drawn = [draw_form(strokes, count, generator) for _, strokes in forms]
    known = torch.tensor([label for label, _ in forms], device=labels.device)
    return torch.cat([images, *drawn]), torch.cat([labels, known.repeat_interleave(count)])
