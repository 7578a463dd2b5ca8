"""Characters that are no digits: drawn from made-up strokes, or put together from turned digits.

A network learns from these what it is to be none of the ten. Numpy only. The order of this file:
strokes, marks, characters made of digits.
"""
import numpy as np

from support.mnist_style import draw, place, resampling


# --- Strokes --------------------------------------------------------------------------------------

def drawn(shape: tuple[int, int], points: np.ndarray, pen: float) -> np.ndarray:
    """(H, W) float32 of 0 to 1: strokes along straight segments between points (n, 2) of y, x in
    pixels, NaN where the pen is lifted."""
    picture = np.zeros(shape, np.float32)
    for start, end in zip(points[:-1], points[1:]):
        if np.isnan(start + end).any():
            continue
        low = np.maximum(np.minimum(start, end) - pen - 1, 0).astype(int)
        high = np.maximum(np.maximum(start, end) + pen + 2, 0).astype(int)
        part = picture[low[0] : high[0], low[1] : high[1]]
        if not part.size:
            continue
        y, x = np.ogrid[low[0] : low[0] + part.shape[0], low[1] : low[1] + part.shape[1]]
        along = end - start
        length = max(along @ along, 1e-6)
        share = (((y - start[0]) * along[0] + (x - start[1]) * along[1]) / length).clip(0, 1)
        away = np.hypot(y - start[0] - share * along[0], x - start[1] - share * along[1])
        np.maximum(part, (pen / 2 + 0.5 - away).clip(0, 1), out=part)
    return picture


def smooth_curve(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """Points (n, 2) joined by a smooth curve through them (Catmull-Rom)."""
    p = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = [0.5 * (2 * p[i] + (p[i + 1] - p[i - 1]) * t
                    + (2 * p[i - 1] - 5 * p[i] + 4 * p[i + 1] - p[i + 2]) * t**2
                    + (3 * p[i] - p[i - 1] - 3 * p[i + 1] + p[i + 2]) * t**3)
             for i in range(1, len(p) - 2)]
    return np.concatenate([*parts, points[-1:]])


LIFT = np.full((1, 2), np.nan)


def letter_like(rng: np.random.Generator) -> np.ndarray:
    """Strokes of a made-up character within 0 to 1: points (n, 2) of y, x for `drawn`. Its strokes
    run between points of a coarse grid, straight or curved, sometimes with a loop. Strokes with few
    turns would often draw a digit: two strokes have five points at least, one has four."""
    strokes = []
    turns = 0
    while turns < 3.5:
        count = int(rng.integers(2, 7))
        grid = rng.integers(0, 4, (count, 2)) / 3
        stroke = grid + rng.normal(0, 0.05, (count, 2))
        kind = rng.random()
        if kind < 0.5:
            stroke = smooth_curve(stroke)
        elif kind < 0.65:  # a loop
            angle = np.linspace(0, rng.choice([4.5, 6.3]), 16)[:, None] + rng.uniform(0, 6.3)
            stroke = grid[:1] + np.hstack([np.sin(angle), np.cos(angle)]) * rng.uniform(.12, .35)
            count = 3
        strokes += [stroke, LIFT]
        turns += count - 0.5
    return np.concatenate(strokes[:-1])


def mark(shape: tuple[int, int], rng: np.random.Generator, pen: float) -> np.ndarray:
    """Something that is no digit, (H, W) of 0 to 1: a made-up character, a bar, a blob, a frame."""
    height, width = shape
    size = np.array(shape) - 2 * pen
    kind = rng.random()
    if kind < 0.75:
        return drawn(shape, pen + letter_like(rng) * size.clip(1), pen)
    y, x = np.mgrid[:height, :width] / max(shape)
    if kind < 0.8:  # a bar, level
        at, thick = rng.uniform(0.2, 0.8), rng.uniform(0.02, 0.15)
        return (np.abs(y - at * height / max(shape)) < thick / 2).astype(np.float32)
    if kind < 0.9:  # a blob
        wave = sum(rng.normal() * np.cos(rng.normal(0, 7) * y + rng.normal(0, 7) * x
                                         + rng.uniform(0, 6)) for _ in range(5))
        round_ = np.hypot(y - height / max(shape) / 2, x - width / max(shape) / 2)
        return (round_ + 0.07 * wave < rng.uniform(0.25, 0.42)).astype(np.float32)
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]) + rng.normal(0, 0.03, (5, 2))
    return drawn(shape, pen + corners * size.clip(1), pen)


# --- Characters made of digits --------------------------------------------------------------------

def cut_out(image: np.ndarray) -> np.ndarray:
    """(28, 28) uint8 of MNIST, the box around its ink, float32 of 0 to 1."""
    y, x = np.nonzero(image > 30)
    return image[y.min() : y.max() + 1, x.min() : x.max() + 1].astype(np.float32) / 255


# Digits that are none when they are mirrored or upside down. Others may stay one: a 2 or a 5 turned
# by a quarter looks like a 5 or a 2 that leans, an 8 that lies like one that leans.
TURNED = {3: "mu", 4: "mu", 6: "m", 7: "mu", 9: "m"}


def turned(digit: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """A digit of `cut_out`, one of TURNED, turned so that it is none."""
    if rng.choice(list(TURNED[label])) == "m":
        return digit[:, ::-1]
    return digit[::-1, ::-1]


PLAIN = (0, 1, 8)  # digits that are the same turned, or nearly


def turned_part(images: np.ndarray, labels: np.ndarray, height: int, width: int,
                rng: np.random.Generator) -> np.ndarray:
    """One of (N, 28, 28) uint8 digits, turned and squeezed at random: (height, width) of 0 to 1."""
    if rng.random() < 0.8:
        i = rng.choice(np.flatnonzero(~np.isin(labels, PLAIN)))
    else:
        i = rng.integers(len(labels))
    digit = np.rot90(cut_out(images[i]), rng.integers(4))
    if rng.random() < 0.5:
        digit = digit[::-1]
    rows, columns = digit.shape
    return resampling(rows, height) @ digit @ resampling(columns, width).T


def beside(left: np.ndarray, right: np.ndarray, gap: int, rng: np.random.Generator) -> np.ndarray:
    """Two drawings of 0 to 1 side by side, `gap` pixels apart, or overlapping where it is below 0;
    the right one, at most as high, at a random height."""
    height = len(left)
    picture = np.zeros((height, left.shape[1] + right.shape[1] + gap), np.float32)
    picture[:, : left.shape[1]] = left
    top = rng.integers(0, height - len(right) + 1)
    corner = picture[top : top + len(right), -right.shape[1] :]
    np.maximum(corner, right, out=corner)
    return picture


def made_up(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A character that is no digit, (28, 28) uint8 as MNIST would show it, from digits in (N, 28,
    28) uint8: one that is turned, or two or three, turned and squeezed, that are put side by side,
    over each other, or across each other. Strokes of real pens, as foreign letters have them."""
    def part(height: int, width: int) -> np.ndarray:
        return turned_part(images, labels, height, width, rng)

    kind = rng.random()
    high, wide = rng.integers(24, 41, 2)
    if kind < 0.2:
        i = rng.choice(np.flatnonzero(np.isin(labels, list(TURNED))))
        picture = turned(cut_out(images[i]), int(labels[i]), rng)
    elif kind < 0.45:
        gap = rng.integers(-4, 6)
        left = part(high, wide // 2 + 4)
        right = part(int(high * rng.uniform(0.5, 1)), wide // 2 + 4)
        picture = beside(left, right, gap, rng)
    elif kind < 0.7:
        gap = rng.integers(-4, 6)
        upper = part(high // 2 + 4, wide)
        lower = part(high // 2 + 4, int(wide * rng.uniform(0.5, 1)))
        picture = beside(upper.T, lower.T, gap, rng).T
    else:
        picture = part(high, wide)
        for _ in range(rng.integers(1, 3)):
            picture = np.maximum(picture, part(high, wide))
    return place(draw(np.pad(picture, 1).astype(np.float32)))
