"""A digit drawn as MNIST draws it: fitted into 20 × 20 pixels with its aspect ratio kept, grey from
anti-aliasing, strokes as thick as MNIST's, and placed in 28 × 28 so that its centre of mass is in
the middle (Y. LeCun, "The MNIST database"). Numpy only.
"""
import functools

import numpy as np

BOX, SIDE = 20, 28  # pixels: the digit is fitted into a box of 20 × 20 in a picture of 28 × 28


def resampling_table(size: int, new: int) -> np.ndarray:
    """(new, size) float32: row i says how much of each old pixel goes into new pixel i. Shrinking
    takes the mean over a new pixel's area, so no thin stroke is skipped; enlarging is linear."""
    step = size / new
    centre = ((np.arange(new)[:, None] + 0.5) * step - 0.5).clip(0, size - 1)
    table = ((max(step, 1) + 1) / 2 - np.abs(np.arange(size) - centre)).clip(0, 1)
    return (table / table.sum(1, keepdims=True)).astype(np.float32)


resampling = functools.lru_cache(1000)(resampling_table)  # for the few sizes that ink is drawn in


def resize(grey: np.ndarray, side: int) -> np.ndarray:
    """(H, W) float32 becomes (h, w) with `side` pixels on the longer side, the aspect kept."""
    height, width = (max(1, round(n * side / max(grey.shape))) for n in grey.shape)
    return resampling(grey.shape[0], height) @ grey @ resampling(grey.shape[1], width).T


FINE = 4  # it is drawn this many times finer, and averaged down at the end
THIN, THICK = 1.9, 3.6  # pixels: the strokes of most MNIST digits are between these


def stroke_width(inside: np.ndarray) -> float:
    """The mean width of the strokes of (H, W) bool, in pixels: a long stroke has its area, width ×
    length, and its edge, twice the length. An edge is as long as it is often crossed by lines in
    four directions (Crofton's formula)."""
    wide = np.pad(inside, 1)
    straight = (wide[1:] != wide[:-1]).sum() + (wide[:, 1:] != wide[:, :-1]).sum()
    aslant = (wide[1:, 1:] != wide[:-1, :-1]).sum() + (wide[1:, :-1] != wide[:-1, 1:]).sum()
    edge = np.pi / 8 * (straight + aslant / np.sqrt(2))
    return 2 * inside.sum() / edge


def thicker(inside: np.ndarray, radius: float) -> np.ndarray:
    """(H, W) bool, each pixel of it a disc of `radius` pixels: rows that reach the further, the
    nearer they are to the disc's middle."""
    height, width = inside.shape
    result = inside.copy()
    row = inside.copy()  # each pixel a level stroke that reaches `reach` pixels to both sides
    reach = 0
    for away in range(int(radius), -1, -1):
        while (reach + 1) ** 2 <= radius**2 - away**2:
            reach += 1
            row[:, reach:] |= inside[:, : max(width - reach, 0)]
            row[:, : max(width - reach, 0)] |= inside[:, reach:]
        result[away:] |= row[: height - away]
        result[: height - away] |= row[away:]
    return result


def solid(strength: np.ndarray) -> np.ndarray:
    """Which pixels of (H, W) are ink: those of half the usual strength. That is 1, but where a
    large picture was made small, a thin line has become pale."""
    return strength > np.median(strength[strength >= strength.max() / 2]) / 2


def draw(strength: np.ndarray) -> np.ndarray:
    """(H, W) float32, cut out at the digit, 0.5 at its edge, becomes a drawing (20, w) or (h, 20),
    0 to 1, with strokes as thick as MNIST's: a thin one does not fade, a thick one not fill up."""
    inside = solid(resize(strength, BOX * FINE))
    width = stroke_width(inside)
    grow = (np.clip(width, THIN * FINE, THICK * FINE) - width) / 2
    margin = max(0, round(grow))
    inside = np.pad(solid(resize(strength, BOX * FINE - 2 * margin)), margin)
    if grow >= 1:
        inside = thicker(inside, grow)
    if grow <= -1:
        inside = ~thicker(~np.pad(inside, 1), -grow)[1:-1, 1:-1]
    # Padded to whole pixels, then averaged: the grey levels of anti-aliasing.
    spare = [(-n % FINE // 2, -(-n % FINE // -2)) for n in inside.shape]
    inside = np.pad(inside, spare)
    return inside.reshape(inside.shape[0] // FINE, FINE, -1, FINE).mean((1, 3))


def place(drawing: np.ndarray) -> np.ndarray:
    """(h, w) of 0 to 1, at most 28, becomes (28, 28) uint8, the centre of mass at the centre."""
    picture = np.zeros((SIDE, SIDE), np.uint8)
    corner = []
    for axis, length in enumerate(drawing.shape):
        centre = drawing.sum(1 - axis) @ (np.arange(length) + 0.5) / max(drawing.sum(), 1e-9)
        corner.append(min(max(round(SIDE / 2 - centre), 0), SIDE - length))
    y, x = corner
    picture[y : y + drawing.shape[0], x : x + drawing.shape[1]] = np.rint(255 * drawing)
    return picture
