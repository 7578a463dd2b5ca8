"""Pictures composed from training digits, and what `support/ink.py` proposes in them: examples of
digits and of *others* for a network that has to tell them apart.

A composed picture has paper (plain, ruled, squared, a sheet lying aslant on a table), light and
shadow, up to six digits in a row, and marks that are no digits. The order of this file: paper,
digits, pictures, examples.
"""
from dataclasses import dataclass

from support import ink
from support.characters import (TURNED, cut_out, drawn, made_up, mark, smooth_curve,
                                turned)
from support.command_line import Progress
from support.cutting import cut, strongest
from support.mnist_style import BOX, SIDE, place, resampling, resize

import numpy as np
import torch


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

def written(digit: np.ndarray, height: int, rng: np.random.Generator) -> np.ndarray:
    """A digit of `cut_out`, drawn `height` pixels high by a thin or a broad pen: (height, w)."""
    side = max(2, round(height * max(digit.shape) / digit.shape[0]))
    large = resize(np.pad(digit, 1), side + 2)
    sharp = max(1, height / 12)  # enlarged, the soft edge of MNIST's strokes becomes sharp again
    return ((large - rng.uniform(0.25, 0.65)) * sharp + 0.5).clip(0, 1)


# --- Pictures -------------------------------------------------------------------------------------

@dataclass
class Mark:
    """What is written in a composed picture: a digit, or something that is none."""
    label: int  # of the digit, -1 for none
    digit: np.ndarray  # the digit as `cut_out` gives it
    drawing: np.ndarray  # (h, w) of 0 to 1
    y: float  # of its upper edge, in pixels, and x of its left one
    x: float


def written_mark(images: np.ndarray, labels: np.ndarray, height: int, is_digit: bool,
                 rng: np.random.Generator) -> Mark:
    """One of (N, 28, 28) uint8 digits in another size and pen or, if it is not to be a digit (and
    seldom even then), a turned one or a mark."""
    i = rng.integers(len(images))
    digit, label = cut_out(images[i]), int(labels[i])
    if is_digit and rng.random() < 0.93:
        return Mark(label, digit, written(digit, height, rng), 0, 0)
    if label in TURNED and rng.random() < 0.5:
        return Mark(-1, digit, written(turned(digit, label, rng), height, rng), 0, 0)
    width = round(height * rng.uniform(0.4, 1.6))
    pen = rng.uniform(0.04, 0.14) * height
    return Mark(-1, digit, mark((height, width), rng, pen), 0, 0)


def compose(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator):
    """One picture of digits chosen from (N, 28, 28) uint8 training images and their labels.
    Returns (H, W, 3) uint8, and a list of (label, box, digit): top, left, bottom, right in pixels,
    and the digit as `cut_out` gives it."""
    count = int(rng.choice([0, 1, 2, 3, 4, 6], p=[0.25, 0.4, 0.14, 0.1, 0.07, 0.04]))
    height = rng.uniform(16, 110)
    gap = rng.normal(0.08, 0.2) * height  # below 0 they touch
    slope = rng.choice([0, rng.normal(0, 0.25)])
    if not count and rng.random() < 0.15:  # paper, with nothing written on it
        shape = tuple(rng.integers(30, 300, 2))
        return photographed(np.zeros(shape, np.float32), height, rng), []
    marks, x = [], 0.0
    for _ in range(max(count, 1)):
        tall = round(height * rng.uniform(0.85, 1.15))
        each = written_mark(images, labels, tall, count > 0, rng)
        each.x = x
        each.y = x * slope + rng.normal(0, 0.06) * height
        marks.append(each)
        x += max(each.drawing.shape[1] + gap + rng.normal(0, 0.05) * height, 0.3 * height)
    drawing, truth = on_one_page(marks, height, rng)
    picture = photographed(drawing, height, rng)
    scale = np.tile(np.array(picture.shape[:2]) / drawing.shape, 2)
    return picture, [(label, box * scale, digit) for label, box, digit in truth]


def on_one_page(marks: list[Mark], height: float, rng: np.random.Generator):
    """Marks drawn with margins around them, or none: (H, W) of 0 to 1, and the list of (label, box,
    digit) of those that are digits."""
    top = min(each.y for each in marks)
    bottom = max(each.y + len(each.drawing) for each in marks)
    right = max(each.x + each.drawing.shape[1] for each in marks)
    if rng.random() < 0.15:
        margin = np.zeros(4)  # cut out closely
    else:
        margin = rng.exponential(0.5, 4) * height + 0.08 * height
    shape = (round(bottom - top + margin[0] + margin[1]), round(right + margin[2] + margin[3]))
    page = np.zeros(np.maximum(shape, 8), np.float32)
    truth = []
    for each in marks:
        y, x = round(each.y - top + margin[0]), round(each.x + margin[2])
        piece = each.drawing[: len(page) - y, : page.shape[1] - x]
        part = page[y : y + piece.shape[0], x : x + piece.shape[1]]
        np.maximum(part, piece, out=part)
        if each.label >= 0:
            box = np.array([y, x, y + piece.shape[0], x + piece.shape[1]])
            truth.append((each.label, box, each.digit))
    return page, truth


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

def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """The intersection of two boxes by their union, from 0 to 1."""
    common = ink.common_area(a, b)
    return common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two (28, 28) pictures, each a little blurred."""
    a, b = (ink.smooth(picture.astype(np.float32)) for picture in (a, b))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-9))


def digit_of(candidate: ink.Candidate, truth: list) -> int | None:
    """Which digit of the truth a candidate is, by its number there; -1 for none of them, None where
    that is not clear: it has a part of a digit's place, or its place but not quite its looks."""
    shares = [intersection_over_union(candidate.box, box) for _, box, _ in truth]
    if max(shares, default=0) < 0.3:
        return -1
    nearest = int(np.argmax(shares))
    wanted = place(resize(truth[nearest][2], BOX))
    likeness = correlation(candidate.seen, wanted)
    if likeness < 0.3:
        return -1
    if likeness > 0.6 and shares[nearest] > 0.6:
        return nearest
    return None


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
        wide = [c for c in found if c.width > 0.6 * c.height and digit_of(c, truth) == -1]
        found = [c for c in found if not (c.is_stroke and c.cut_off)]
        for i in rng.permutation(len(wide))[:2]:
            parts = cut(wide[i]) + strongest(wide[i])
            found += [c for c in parts if not c.is_stroke]
        taken, others = set(), 0
        for i in rng.permutation(len(found)):
            which = digit_of(found[i], truth)
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


def learns_other(recipe, digits) -> bool:
    """Whether a train.Recipe is to teach what is no digit: of an idx_data.Digits that is not MNIST,
    nobody knows whether it is of digits at all."""
    return recipe.composed > 0 and digits.is_mnist() and digits.content != "plain"


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
