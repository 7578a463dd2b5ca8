"""Pictures composed from training digits, and what `support/ink.py` proposes in them: examples of
digits and of *others* for a network that has to tell them apart.

A composed picture has paper (plain, ruled, squared, a sheet lying aslant on a table), light and
shadow, up to six digits in a row, and marks that are no digits. Numpy only. The order of this file:
strokes, paper, digits, pictures, examples.
"""
from support import ink
from support.command_line import Progress
from support.cutting import cut, strongest
from support.mnist_style import BOX, SIDE, draw, place, resampling, resize

import numpy as np
import torch


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


# --- Paper ----------------------------------------------------------------------------------------

def waves(shape: tuple[int, int], rng: np.random.Generator, size: float) -> np.ndarray:
    """(H, W) float32, smooth random hills and valleys about `size` of the picture wide, mean 0 and
    standard deviation 1."""
    points = max(3, round(1 / size))
    field = rng.normal(0, 1, (points, points)).astype(np.float32)
    field = resampling(points, shape[0]) @ field @ resampling(points, shape[1]).T
    return (field - field.mean()) / max(field.std(), 1e-6)


def half_plane(shape: tuple[int, int], rng: np.random.Generator, soft: float) -> np.ndarray:
    """(H, W) of 0 to 1: one side of a line across the picture, its edge `soft` pixels wide."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: shape[0], : shape[1]]
    away = np.cos(angle) * (x - rng.uniform(0.1, 0.9) * shape[1]) \
        + np.sin(angle) * (y - rng.uniform(0.1, 0.9) * shape[0])
    return (away / max(soft, 1) + 0.5).clip(0, 1).astype(np.float32)


def rules(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) of 0 to 1: the lines of ruled or squared paper, level or a little aslant."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    lean = rng.choice([0, rng.normal(0, 0.04)])
    apart = rng.uniform(0.06, 0.4) * max(shape)
    pen = rng.uniform(0.7, max(1, apart / 12))

    def lines(across):
        away = np.abs((across + rng.uniform(0, apart)) % apart - apart / 2)
        return (pen / 2 + 0.5 - away).clip(0, 1)
    level = lines(y + lean * x)
    if rng.random() < 0.5:
        level = np.maximum(level, lines(x - lean * y))
    return level.astype(np.float32)


def sheet(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) of 0 to 1: a rectangular sheet, a little turned, that covers most of the picture."""
    angle = rng.choice([0, rng.normal(0, 0.25)])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    y, x = y - shape[0] / 2, x - shape[1] / 2
    along, down = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    away = np.maximum(np.abs(along) - rng.uniform(0.3, 0.5) * shape[1],
                      np.abs(down) - rng.uniform(0.3, 0.5) * shape[0])
    return (0.5 - away).clip(0, 1)


# --- Digits ---------------------------------------------------------------------------------------

def cut_out(image: np.ndarray) -> np.ndarray:
    """(28, 28) uint8 of MNIST, the box around its ink, float32 of 0 to 1."""
    y, x = np.nonzero(image > 30)
    return image[y.min() : y.max() + 1, x.min() : x.max() + 1].astype(np.float32) / 255


def written(digit: np.ndarray, height: int, rng: np.random.Generator) -> np.ndarray:
    """A digit of `cut_out`, drawn `height` pixels high by a thin or a broad pen: (height, w)."""
    side = max(2, round(height * max(digit.shape) / digit.shape[0]))
    large = resize(np.pad(digit, 1), side + 2)
    sharp = max(1, height / 12)  # enlarged, the soft edge of MNIST's strokes becomes sharp again
    return ((large - rng.uniform(0.25, 0.65)) * sharp + 0.5).clip(0, 1)


# Digits that are none when they are mirrored or upside down. Others may stay one: a 2 or a 5 turned
# by a quarter looks like a 5 or a 2 that leans, an 8 that lies like one that leans.
TURNED = {3: "mu", 4: "mu", 6: "m", 7: "mu", 9: "m"}


def turned(digit: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """A digit of `cut_out`, one of TURNED, turned so that it is none."""
    if rng.choice(list(TURNED[label])) == "m":
        return digit[:, ::-1]
    return digit[::-1, ::-1]


PLAIN = (0, 1, 8)  # digits that are the same turned, or nearly


def made_up(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A character that is no digit, (28, 28) uint8 as MNIST would show it, from digits in (N, 28,
    28) uint8: one that is turned, or two or three, turned and squeezed, that are put side by side,
    over each other, or across each other. Strokes of real pens, as foreign letters have them."""
    turnable = np.flatnonzero(~np.isin(labels, PLAIN))

    def part(height: int, width: int) -> np.ndarray:
        i = rng.choice(turnable) if rng.random() < 0.8 else rng.integers(len(labels))
        digit = np.rot90(cut_out(images[i]), rng.integers(4))
        if rng.random() < 0.5:
            digit = digit[::-1]
        rows, columns = digit.shape
        return resampling(rows, height) @ digit @ resampling(columns, width).T

    kind = rng.random()
    high, wide = rng.integers(24, 41, 2)
    if kind < 0.2:
        i = rng.choice(np.flatnonzero(np.isin(labels, list(TURNED))))
        picture = turned(cut_out(images[i]), int(labels[i]), rng)
    elif kind < 0.45:  # side by side, perhaps touching
        gap = rng.integers(-4, 6)
        left = part(high, wide // 2 + 4)
        right = part(int(high * rng.uniform(0.5, 1)), wide // 2 + 4)
        picture = np.zeros((high, left.shape[1] + right.shape[1] + gap), np.float32)
        picture[:, : left.shape[1]] = left
        top = rng.integers(0, high - len(right) + 1)
        corner = picture[top : top + len(right), -right.shape[1] :]
        np.maximum(corner, right, out=corner)
    elif kind < 0.7:  # one over the other
        gap = rng.integers(-4, 6)
        upper = part(high // 2 + 4, wide)
        lower = part(high // 2 + 4, int(wide * rng.uniform(0.5, 1)))
        picture = np.zeros((len(upper) + len(lower) + gap, wide), np.float32)
        picture[: len(upper)] = upper
        left = rng.integers(0, wide - lower.shape[1] + 1)
        corner = picture[-len(lower) :, left : left + lower.shape[1]]
        np.maximum(corner, lower, out=corner)
    else:  # across each other
        picture = part(high, wide)
        for _ in range(rng.integers(1, 3)):
            picture = np.maximum(picture, part(high, wide))
    return place(draw(np.pad(picture, 1).astype(np.float32)))


# --- Pictures -------------------------------------------------------------------------------------

def compose(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator):
    """One picture of digits chosen from (N, 28, 28) uint8 training images and their labels.
    Returns (H, W, 3) uint8, and a list of (label, box, digit): top, left, bottom, right in pixels,
    and the digit as `cut_out` gives it."""
    count = int(rng.choice([0, 1, 2, 3, 4, 6], p=[0.25, 0.4, 0.14, 0.1, 0.07, 0.04]))
    height = rng.uniform(16, 110)
    things, x = [], 0.0
    gap = rng.normal(0.08, 0.2) * height  # below 0 they touch
    slope = rng.choice([0, rng.normal(0, 0.25)])
    if not count and rng.random() < 0.15:  # paper, with nothing written on it
        shape = tuple(rng.integers(30, 300, 2))
        return photographed(np.zeros(shape, np.float32), height, rng), []
    for _ in range(max(count, 1)):
        tall = round(height * rng.uniform(0.85, 1.15))
        i = rng.integers(len(images))
        digit, label = cut_out(images[i]), int(labels[i])
        if count and rng.random() < 0.93:
            piece = written(digit, tall, rng)
        elif label in TURNED and rng.random() < 0.5:
            piece = written(turned(digit, label, rng), tall, rng)
            label = -1
        else:
            wide = round(tall * rng.uniform(0.4, 1.6))
            piece = mark((tall, wide), rng, rng.uniform(0.04, 0.14) * tall)
            label = -1
        y = x * slope + rng.normal(0, 0.06) * height
        things.append((label, digit, piece, y, x))
        x += max(piece.shape[1] + gap + rng.normal(0, 0.05) * height, 0.3 * height)
    top = min(y for *_, y, _ in things)
    bottom = max(y + piece.shape[0] for _, _, piece, y, _ in things)
    right = max(x + piece.shape[1] for _, _, piece, _, x in things)
    if rng.random() < 0.15:
        margin = np.zeros(4)  # cut out closely
    else:
        margin = rng.exponential(0.5, 4) * height + 0.08 * height
    shape = (round(bottom - top + margin[0] + margin[1]), round(right + margin[2] + margin[3]))
    shape = tuple(np.maximum(shape, 8))
    drawing = np.zeros(shape, np.float32)
    truth = []
    for label, digit, piece, y, x in things:
        y, x = round(y - top + margin[0]), round(x + margin[2])
        piece = piece[: shape[0] - y, : shape[1] - x]
        part = drawing[y : y + piece.shape[0], x : x + piece.shape[1]]
        np.maximum(part, piece, out=part)
        if label >= 0:
            truth.append((label, np.array([y, x, y + piece.shape[0], x + piece.shape[1]]), digit))
    picture = photographed(drawing, height, rng)
    scale = np.tile(np.array(picture.shape[:2]) / shape, 2)
    return picture, [(label, box * scale, digit) for label, box, digit in truth]


def photographed(drawing: np.ndarray, height: float, rng: np.random.Generator) -> np.ndarray:
    """Dark ink (H, W) of 0 to 1 on some paper in some light, (H, W, 3) uint8; `height`: of a digit.
    """
    shape = drawing.shape
    if rng.random() < 0.4:  # drawn on a screen
        paper, strength = rng.choice([(255, 1.0), (255, rng.uniform(0.2, 1)),
                                      (rng.uniform(120, 255), rng.uniform(0.4, 1))])
        grey = paper * (1 - strength * drawing)
    else:
        if rng.random() < 0.5:  # a soft pen
            drawing = drawing * (1 - 0.25 * np.abs(waves(shape, rng, 0.1))).clip(0.3, 1)
        lines = rules(shape, rng) * rng.uniform(0.1, 0.9) if rng.random() < 0.3 else 0
        if rng.random() < 0.15:  # a scribble, or a line beside or through the digits
            ends = rng.uniform(-0.1, 1.1, (int(rng.integers(2, 7)), 2)) * shape
            pen = rng.uniform(0.02, 0.12) * height
            lines = np.maximum(lines, drawn(shape, smooth_curve(ends), pen))
        page = rng.uniform(150, 250) * (1 - rng.uniform(0.4, 1) * drawing)
        page = page * (1 - lines * rng.uniform(0.2, 0.9) * (1 - drawing))
        if rng.random() < 0.2:
            mask = sheet(shape, rng)
            page = page * mask + rng.uniform(0, 90) * (1 - mask)
        light = 1 + rng.uniform(0, 0.25) * waves(shape, rng, 0.6)
        if rng.random() < 0.3:
            soft = rng.choice([1.0, 5.0, 60.0])
            light = light * (1 - rng.uniform(0.2, 0.6) * half_plane(shape, rng, soft))
        grain = rng.normal(0, rng.uniform(0, 6), shape)
        grey = page * light.clip(0.25, 1.3) + grain
        stains = rng.choice([2, 2, 20]) * rng.random()  # grey levels
        grey = grey + stains * waves(shape, rng, rng.uniform(0.02, 0.2))
    side = max(shape)
    if rng.random() < 0.35:  # few pixels
        side = min(side, round(rng.uniform(8, 40) * side / max(height, side / 4)))
        grey = resize(grey.astype(np.float32), max(side, 8))
    grey = grey.clip(0, 255).astype(np.uint8)
    return np.dstack([grey] * 3)


# --- Examples -------------------------------------------------------------------------------------

def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The intersection of two boxes by their union, from 0 to 1."""
    common = ink.common_area(a, b)
    return common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two (28, 28) pictures, each a little blurred."""
    a, b = (ink.smooth(picture.astype(np.float32)) for picture in (a, b))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-9))


def judge(candidate: ink.Candidate, truth: list) -> int | None:
    """Which digit of the truth a candidate is, by its number there; -1 for none of them, None where
    that is not clear: it has a part of a digit's place, or its place but not quite its looks."""
    shares = [overlap(candidate.box, box) for _, box, _ in truth]
    if max(shares, default=0) < 0.3:
        return -1
    nearest = int(np.argmax(shares))
    wanted = place(resize(truth[nearest][2], BOX))
    likeness = alike(candidate.seen, wanted)
    if likeness < 0.3:
        return -1
    if likeness > 0.6 and shares[nearest] > 0.6:
        return nearest
    return None


def is_stroke(candidate: ink.Candidate) -> bool:
    """Whether it is no more than an upright stroke, which looks like a 1 whatever it is of."""
    return candidate.width < 0.3 * candidate.height


MADE_UP = 1  # character for each picture
OTHERS = 4  # that are taken from a picture, at the most: those of a textured one are much alike


def examples(images: np.ndarray, labels: np.ndarray, numbers, seed: int, other: int = 10):
    """What is proposed in composed pictures, and MADE_UP characters for each: (n, 28, 28) uint8,
    and their labels (n,) int64, `other` for what is no digit. A digit that is proposed several
    times is taken once. The pictures have numbers and, with the seed, each its own random numbers:
    they can be made in any order."""
    seen, known = [], []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        rgb, truth = compose(images, labels, rng)
        light = rng.random() < 0.35  # ink on dark paper
        if light:
            rgb = 255 - rgb
        found = ink.whole(rgb) + ink.candidates(rgb)
        wide = [c for c in found if c.width > 0.6 * c.height and judge(c, truth) == -1]
        found = [c for c in found if not (is_stroke(c) and c.cut_off)]
        for i in rng.permutation(len(wide))[:2]:
            parts = cut(wide[i]) + strongest(wide[i])
            found += [c for c in parts if not is_stroke(c)]
        taken, others = set(), 0
        for i in rng.permutation(len(found)):
            which = judge(found[i], truth)
            if which is not None and found[i].dark == light:  # the paper inside a 0, perhaps
                which = -1
            if which is None or which in taken or (which < 0 and others == OTHERS):
                continue
            if which < 0:
                others += 1
            else:
                taken.add(which)
            seen.append(found[i].seen)
            known.append(other if which < 0 else truth[which][0])
        for _ in range(MADE_UP):
            seen.append(made_up(images, labels, rng))
            known.append(other)
    if not seen:
        return np.zeros((0, SIDE, SIDE), np.uint8), np.zeros(0, np.int64)
    return np.stack(seen), np.array(known, np.int64)


def with_others(images: torch.Tensor, labels: torch.Tensor, pictures: int, seed: int) -> tuple:
    """(N, H, W) uint8 digits and their labels, with the examples of `pictures` composed ones."""
    parts = []
    with Progress(pictures, "composing") as bar:
        for number in range(pictures):
            parts.append(examples(images.cpu().numpy(), labels.cpu().numpy(), [number], seed))
            if bar.due():
                bar.show(number)
    seen = torch.from_numpy(np.concatenate([seen for seen, _ in parts])).to(images.device)
    known = torch.from_numpy(np.concatenate([known for _, known in parts])).to(labels.device)
    return torch.cat([images, seen]), torch.cat([labels, known])
