"""The candidates of a picture: whatever in it might be a digit, each drawn as MNIST draws digits.

Nothing is decided here. For dark and for light ink, on paper of one grey and on paper found under
the ink, each connected component is a candidate; a network says afterwards which of them are
digits. Numpy only. The order of this file: a grey picture, paper and ink, connected components,
candidates.
"""
import functools
import math
from dataclasses import dataclass

import numpy as np

from support.errors import FormatError
from support.mnist_style import BOX, draw, place, resize, stroke_width
from support.pictures import luminance

WORK = 320  # pixels of the longer side in which ink is looked for
SMALL = 40  # pixels of the longer side up to which a pixel is about as wide as a stroke
NO_INK = "no ink found: all of the picture is transparent"


# --- A grey picture -------------------------------------------------------------------------------

PIXELS = 1 << 20  # of a picture that are looked at, or computed, at once


def composite(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 becomes opaque (H, W, 3) uint8. Raises FormatError where nothing is visible.

    What lies behind the transparent parts is not in the file. Where all that is visible is ink, it
    is the one of black and white that the ink stands out from. Where most of the picture is
    visible, and not of one grey (a sheet with round corners), it is the colour most of it has."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return rgba[..., :3]
    if not alpha.any():
        raise FormatError(NO_INK)
    step = math.ceil(math.sqrt(alpha.size / PIXELS))
    few = rgba[::step, ::step]
    visible = few[..., 3] > alpha.max() / 2
    if not visible.any():  # too little of it is, for so coarse a look
        few = rgba
        visible = few[..., 3] > alpha.max() / 2
    seen = few[visible]
    grey = luminance(seen)
    behind = 0 if grey.mean() > 127 else 255
    if visible.mean() > 0.5 and np.ptp(np.percentile(grey, [2, 98])) > 40:
        behind = np.median(seen[:, :3], axis=0)
    rgb = np.empty((*rgba.shape[:2], 3), np.uint8)
    rows = max(1, PIXELS // rgba.shape[1])
    for top in range(0, len(rgba), rows):
        band = slice(top, top + rows)
        part = alpha[band] / np.float32(255)
        rgb[band] = np.rint(rgba[band, :, :3] * part + np.float32(behind) * (1 - part))
    return rgb


def shrink(rgb: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) becomes float32, by the means of k × k pixels, its longer side still `side` or
    more: the same as `resize`, for a photograph in a tenth of the time."""
    k = max(1, max(rgb.shape) // side)
    ky, kx = min(k, rgb.shape[0]), min(k, rgb.shape[1])
    height, width = rgb.shape[0] // ky, rgb.shape[1] // kx
    total = np.zeros((height, width, 3), np.float32)
    for y in range(ky):
        for x in range(kx):
            total += rgb[y::ky, x::kx][:height, :width]
    return total / (ky * kx)


def to_grey(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 becomes (H, W) from 0 to 255: the luminance, or, for coloured ink as light
    as its paper (yellow on white), the one of red, green and blue that shows it best."""
    grey = luminance(rgb)
    channel = rgb[..., rgb.std((0, 1)).argmax()]
    return channel if channel.std() > 2 * grey.std() else grey


# --- Paper and ink --------------------------------------------------------------------------------

def around(grey: np.ndarray, size: int, pick) -> np.ndarray:
    """`pick` (np.maximum or np.minimum) over the size × size pixels around each one of (H, W),
    size odd; the pixels at the border go on beyond it. Each round doubles the pixels covered."""
    for _ in range(2):  # along the columns, then along the rows
        grey = np.pad(grey, [(size // 2, size // 2), (0, 0)], "edge").T
        covered = 1
        while covered < size:
            step = min(covered, size - covered)
            grey = pick(grey[:, :-step], grey[:, step:])
            covered += step
    return grey


def smooth(grey: np.ndarray) -> np.ndarray:
    """(H, W), each pixel averaged with its eight neighbours: less noise."""
    wide = np.pad(grey, 1, "edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def paper_under(grey: np.ndarray) -> np.ndarray:
    """The light paper of (H, W) as if nothing were written on it, by a closing: the darkest of the
    lightest around fills whatever is dark and narrower than a quarter of the picture, so strokes
    go, while slow changes of light, the sharp edge of a shadow, and a dark table stay."""
    size = round(0.27 * max(grey.shape)) | 1
    wide = np.pad(grey, size, "edge")  # what is dark at the border is as if it went on
    return around(around(wide, size, np.maximum), size, np.minimum)[size:-size, size:-size]


def otsu(values: np.ndarray) -> float:
    """The threshold that splits values of 0 to 1 into two groups with the least variance within
    (N. Otsu, "A threshold selection method from gray-level histograms", 1979)."""
    counts, edges = np.histogram(values, 128, (0, 1))
    below, sums = counts.cumsum(), (counts * (edges[1:] + edges[:-1]) / 2).cumsum()
    above = below[-1] - below
    means_apart = sums / below.clip(1) - (sums[-1] - sums) / above.clip(1)
    return float(edges[1 + (below * above * means_apart**2).argmax()])


DARKEST = 40  # grey: light falls on paper and ink alike, but below this there is mostly noise
SAME = 2  # grey levels of 255: paper that differs by less is of one grey


def ink_strengths(grey: np.ndarray):
    """Yield what may be ink in (H, W) of 0 to 255, up to four times: whether it is dark, and (H, W)
    float32, 0 where there is paper, 1 where it is as dark (or as light) as can be. Dark ink, then
    light ink, and each on paper of one grey and on paper found around each pixel. The light falls
    on both, so the ratio of the two is the ink's own. In a picture that is mostly light, the dark
    around light ink is no paper: those are strokes, and between them is paper."""
    for dark, picture in (True, grey), (False, 255 - grey):
        lighter = picture > 255 * otsu(picture / 255)
        one_grey = np.median(picture[lighter]) if lighter.any() else picture.max()
        papers = [one_grey]
        under = paper_under(picture)
        mostly_paper = lighter.mean() > 0.5
        if np.abs(under - one_grey).max() > SAME and (dark or mostly_paper):
            papers.append(under)
        for paper in papers:
            yield dark, ((paper - picture) / np.maximum(paper, DARKEST)).clip(0, 1)


TWO_GROUPS = 0.8  # of the variance lies between the groups: of mere noise, 2 / π, when it is halved


def threshold(strength: np.ndarray) -> float:
    """The strength from which (H, W) is certainly ink; 1 if nowhere. A digit covers little of a
    large picture, so what is within the noise of the paper is left out before Otsu's method splits
    the rest. The paper is most of the picture or, of a digit cut out closely, what is not ink."""
    paper = strength
    is_ink = strength > otsu(strength)
    if is_ink.any():
        share = is_ink.mean()
        apart = strength[is_ink].mean() - strength[~is_ink].mean()
        if share * (1 - share) * apart**2 > TWO_GROUPS * strength.var():
            paper = strength[~is_ink]
    middle = np.median(paper)
    noise = 1.48 * np.median(np.abs(paper - middle))  # the standard deviation, if it is normal
    floor = max(0.08, middle + 6 * noise)
    if strength.max() < 1.3 * floor:
        return 1.0
    return max(floor, otsu(strength[strength > floor]))


# --- Connected components -------------------------------------------------------------------------

def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of (H, W) bool, diagonal neighbours included: (H, W) int64, their
    numbers from 0 in reading order, -1 outside of them; and their boxes (n, 4): top, left, bottom,
    right, the last two excluded.

    What is joined is not pixels but runs, pixels side by side in a row: each takes the lowest
    number of the runs that it touches in the rows above and below, until nothing changes."""
    height, width = mask.shape
    stride = width + 2  # a row of the flat picture, with paper on both sides
    flat = np.pad(mask, [(0, 0), (1, 1)]).ravel()
    start, end = np.flatnonzero(flat[1:] != flat[:-1]).reshape(-1, 2).T + 1  # of the runs
    # A run touches those of the next row that end at its start or later, and start by its end.
    first = np.searchsorted(end, start + stride)
    last = np.searchsorted(start, end + stride, side="right")
    count = (last - first).clip(0)
    above = np.repeat(np.arange(len(start)), count)
    below = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + first[above]
    number = np.arange(len(start))
    while (number[above] != number[below]).any():
        one, other = number[above], number[below]
        np.minimum.at(number, np.maximum(one, other), np.minimum(one, other))
        while (number[number] != number).any():
            number = number[number]
    lowest = number == np.arange(len(number))
    number = (lowest.cumsum() - 1)[number]
    label = np.full(mask.shape, -1)
    label[mask] = np.repeat(number, end - start)
    row, left, right = start // stride, start % stride - 1, end - start // stride * stride - 1
    box = np.tile([height, width, 0, 0], (lowest.sum(), 1))
    for side, pick, values in ((0, np.minimum, row), (1, np.minimum, left),
                               (2, np.maximum, row + 1), (3, np.maximum, right)):
        pick.at(box[:, side], number, values)
    return label, box


# --- Candidates -----------------------------------------------------------------------------------

@dataclass(eq=False)  # one is equal to itself only
class Candidate:
    """What might be a digit. seen: (28, 28) uint8, as MNIST would show it; box: top, left, bottom,
    right in pixels of the picture; at_border: (4,) bool, which of these sides lie at the border of
    what was looked at; dark: whether it is darker than its paper; strength: the ink (h, w) float32
    of its box, 0.5 at the edge."""
    seen: np.ndarray
    box: np.ndarray
    at_border: np.ndarray
    dark: bool
    strength: np.ndarray
    part_of: "Candidate | None" = None  # the candidate that it was taken out of
    columns: tuple[int, int] | None = None  # of that one, where it was cut: the last one excluded
    probabilities: np.ndarray | None = None  # what a network says: of ten digits, and of *other*

    @property
    def cut_off(self) -> bool:
        """Whether it runs out of the picture, or of the part of it that was looked at closer."""
        return bool(self.at_border.any())

    @property
    def was_cut(self) -> bool:
        """Whether it is a piece that support/cutting.py cut out upright."""
        return self.columns is not None

    @property
    def height(self) -> float:
        return float(self.box[2] - self.box[0])

    @property
    def width(self) -> float:
        return float(self.box[3] - self.box[1])

    @property
    def area(self) -> float:
        return self.height * self.width

    @property
    def side(self) -> float:
        """The longer side, in pixels of the picture."""
        return max(self.height, self.width)

    @functools.cached_property
    def pen(self) -> float:
        """The mean width of its strokes, in pixels of the picture."""
        inside = self.strength >= 0.5
        if not inside.any():
            return 1.0  # fainter than any stroke
        return stroke_width(inside) * self.height / len(inside)

    @property
    def is_stroke(self) -> bool:
        """Whether it is no more than an upright stroke, which looks like a 1 whatever it is of."""
        return self.width < 0.3 * self.height

    @property
    def certainty(self) -> float:
        """The probability of its best digit."""
        return float(self.probabilities[:-1].max())

    @property
    def middle(self) -> tuple[float, float]:
        """y, x of its box's middle."""
        top, left, bottom, right = self.box
        return (top + bottom) / 2, (left + right) / 2


def common_area(a: np.ndarray, b: np.ndarray) -> float:
    """The area that two boxes share: top, left, bottom, right each."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(sides.clip(0).prod())


def overlap(a: Candidate, b: Candidate) -> bool:
    """Whether most of the smaller one of two candidates' boxes lies in the other."""
    return common_area(a.box, b.box) > 0.5 * min(a.area, b.area)


SAME_PLACE = 0.8  # of the larger box is in the smaller one


def same_place(a: Candidate, b: Candidate) -> bool:
    """Whether two candidates' boxes are nearly the same."""
    return common_area(a.box, b.box) > SAME_PLACE * max(a.area, b.area)


def gap(a: Candidate, b: Candidate) -> float:
    """How far two candidates' boxes are from each other, across or down, in pixels; below 0 where
    they overlap."""
    return float(np.maximum(a.box[:2] - b.box[2:], b.box[:2] - a.box[2:]).max())


def block_size(rgb: np.ndarray) -> int:
    """Of (H, W, 3) that was enlarged, pixels to squares: the side of a square; else mostly 1."""
    down = np.flatnonzero((rgb[1:] != rgb[:-1]).any((1, 2))) + 1
    block = np.gcd.reduce([*down, *rgb.shape[:2]])
    if block > 1:
        across = np.flatnonzero((rgb[:, 1:] != rgb[:, :-1]).any((0, 2))) + 1
        block = np.gcd.reduce([*across, block])
    return int(block)


def few_pixels(rgb: np.ndarray) -> np.ndarray | None:
    """(H, W, 3) as a grey picture (h, w) of at most SMALL pixels a side if it has no more to tell:
    it is as small, or was enlarged from one, pixels to squares. None if it has more."""
    if max(rgb.shape) > 32 * SMALL:  # nobody enlarges so much, and to look takes long
        return None
    block = block_size(rgb)
    if max(rgb.shape) / block > SMALL:
        return None
    return to_grey(rgb[::block, ::block].astype(np.float32))


def soft_candidates(grey: np.ndarray, shape: tuple[int, int]):
    """Yield the whole of a small picture (h, w) as a candidate, in both polarities. There a pixel
    is about as wide as a stroke, and its grey says how much of it is ink: a threshold would close
    the loops. `shape`: the sides of the picture that it was, in pixels."""
    low, high = grey.min(), grey.max()
    scale = np.array(shape) / grey.shape
    for dark, ink in (False, grey - low), (True, high - grey):
        ink = ink / max(high - low, 1)
        y, x = np.nonzero(ink > 0.25)
        if len(y) == 0:
            continue
        top, left, bottom, right = y.min(), x.min(), y.max() + 1, x.max() + 1
        part = np.array([top, left, bottom, right])
        at_border = part == [0, 0, *grey.shape]
        ink = ink[top:bottom, left:right]
        box = part * np.tile(scale, 2)
        yield Candidate(place(resize(ink, BOX)), box, at_border, dark, ink)


MOST = 40  # components of one kind of ink that are looked at, the largest: a page full of digits
SMALLEST = 0.03  # of the longer side of the picture: what is smaller is a speck, or far away
FAINT = 0.6  # of the threshold: a stroke's faint end, if it is connected to what is certainly ink


def near_ones(box: np.ndarray, i: int) -> np.ndarray:
    """Which components, (n,) bool, may belong to component i: smaller ones close to it, like the
    detached bar of a 5. `box`: (n, 4) of all."""
    sizes = (box[:, 2:] - box[:, :2]).max(1)
    gap = np.maximum(box[:, :2] - box[i, 2:], box[i, :2] - box[:, 2:]).max(1)
    return (gap < 0.25 * sizes[i]) & (sizes <= sizes[i])


def ink_candidates(strength: np.ndarray, dark: bool, origin: np.ndarray, scale: float):
    """Yield each large component of the ink (H, W), by itself and with its near ones."""
    sure = threshold(strength)
    edge = FAINT * sure
    label, box = components(strength > edge)
    if not len(box):
        return
    owner = label[label >= 0]
    peak = np.zeros(len(box), strength.dtype)  # of another type, this takes 25 times as long
    np.maximum.at(peak, owner, strength[label >= 0])
    peak = peak.astype(float)
    area = np.bincount(owner)
    sizes = (box[:, 2:] - box[:, :2]).max(1)
    large = (sizes >= SMALLEST * max(label.shape)) & (peak > sure) & (area >= 6)
    kept = np.flatnonzero(large)
    kept = kept[np.argsort(-sizes[kept], kind="stable")][:MOST]
    for i in kept:
        alone = np.arange(len(box)) == i
        near = near_ones(box, i) & (peak > sure) & (area >= 0.02 * area[i])
        for chosen in [alone, near] if near.sum() > 1 else [alone]:
            part = np.append(box[chosen, :2].min(0), box[chosen, 2:].max(0))
            top, left, bottom, right = part
            inside = np.append(chosen, False)[label[top:bottom, left:right]]
            values = strength[top:bottom, left:right] / (2 * edge)  # 0.5 at the edge of the ink
            values = np.where(inside, values, values.clip(0, 0.49)).clip(0, 1).astype(np.float32)
            at_border = part == [0, 0, *label.shape]
            yield Candidate(place(draw(values)), origin + part * scale, at_border, dark, values)


def whole(rgb: np.ndarray) -> list[Candidate]:
    """A small picture (H, W, 3) as two candidates, light and dark ink; none of a larger one."""
    small = few_pixels(rgb)
    if small is None:
        return []
    return list(soft_candidates(small, rgb.shape[:2]))


def candidates(rgb: np.ndarray, part: np.ndarray | None = None) -> list[Candidate]:
    """Whatever may be a digit in (H, W, 3), or in a part of it: top, left, bottom, right in
    pixels."""
    if part is None:
        part = np.array([0, 0, *rgb.shape[:2]])
    top, left, bottom, right = part
    view = rgb[top:bottom, left:right]
    small = few_pixels(view)
    if small is not None:
        grey = resize(small, 4 * max(small.shape))
    else:
        grey = to_grey(shrink(view, WORK))
        grey = resize(grey, min(WORK, 4 * max(grey.shape)))
    scale = max(view.shape[:2]) / max(grey.shape)
    origin = np.array([top, left, top, left])
    return [candidate for dark, strength in ink_strengths(grey)
            for candidate in ink_candidates(strength, dark, origin, scale)]
