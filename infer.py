"""Read the handwritten digit in any picture.

    python infer.py digit.png              the digit, its probability, and the next best
    python infer.py --show photo.jpg       with what the network sees, as text
    python infer.py drawings/ --json       every picture in a folder, a JSON object a line
    python infer.py data/t10k-images-idx3-ubyte.gz --index 0,7,42

A picture goes through what MNIST's makers did to their scans (Y. LeCun, C. Cortes, C. Burges, "The
MNIST database"), and before that through what a drawing or a photograph needs. The order of this
file: a grey picture, paper and ink, the pieces of ink, a small picture, the digit as MNIST
draws it, the answer, the command line.
"""
import argparse
import functools
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import model
from evaluate import predict
from idx_data import may_be_idx, read_idx
from support.command_line import Parser, printable, run_script, say
from support.errors import FormatError, UsageError, shape_text
from support.files import open_file, read_file
from support.machine import pick_device, set_threads
from support.pictures import luminance, pictures_in, read_picture
from support.png import write_png

import numpy as np
import torch

WORK = 320  # pixels of the longer side in which ink is looked for
SMALL = 40  # pixels of the longer side up to which a picture is taken for a digit cut out
BOX, SIDE = 20, 28  # pixels: the digit is fitted into a box of 20 × 20 in a picture of 28 × 28
NO_INK = "no ink found: the picture is empty, or too faint"
SEVERAL = "looks like more than one digit"


# --- A grey picture -------------------------------------------------------------------------------

def weights(size: int, new: int) -> np.ndarray:
    """(new, size) float32: row i says how much of each old pixel goes into new pixel i. Shrinking
    takes the mean over a new pixel's area, so no thin stroke is skipped; enlarging is linear."""
    step = size / new
    centre = ((np.arange(new)[:, None] + 0.5) * step - 0.5).clip(0, size - 1)
    table = ((max(step, 1) + 1) / 2 - np.abs(np.arange(size) - centre)).clip(0, 1)
    return (table / table.sum(1, keepdims=True)).astype(np.float32)


def resize(grey: np.ndarray, side: int) -> np.ndarray:
    """(H, W) float32 becomes (h, w) with `side` pixels on the longer side, the aspect kept."""
    height, width = (max(1, round(n * side / max(grey.shape))) for n in grey.shape)
    return weights(grey.shape[0], height) @ grey @ weights(grey.shape[1], width).T


def composite(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 becomes opaque (H, W, 3), uint8 or float32. Raises FormatError where nothing
    is visible.

    What lies behind the transparent parts is not in the file. Where all that is visible is ink, it
    is the one of black and white that the ink stands out from. Where most of the picture is
    visible, and not of one grey (a sheet with round corners), it is the colour most of it has."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return rgba[..., :3]
    if not alpha.any():
        raise FormatError(NO_INK)
    seen = rgba[alpha[..., 0] > alpha.max() / 2]
    grey = luminance(seen)
    behind = 0 if grey.mean() > 127 else 255
    if len(seen) > alpha.size / 2 and np.ptp(np.percentile(grey, [2, 98])) > 40:
        behind = np.median(seen[:, :3], axis=0)
    part = alpha / np.float32(255)
    return rgba[..., :3] * part + np.float32(behind) * (1 - part)


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

def border(picture: np.ndarray) -> np.ndarray:
    """The pixels along the four sides of (H, W)."""
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


def corners(picture: np.ndarray) -> np.ndarray:
    """The four pixels in the corners of (H, W)."""
    return picture[[0, 0, -1, -1], [0, -1, 0, -1]]


UNEVEN = 0.3  # of the border, from which a picture is taken for a photograph


def unevenness(grey: np.ndarray) -> float:
    """How much of the border of (H, W) is not of one grey: little in a drawing, from 0 to 1."""
    edge = border(grey)
    return (np.abs(edge - np.median(edge)) > 0.02 * np.ptp(grey)).mean()


def around(grey: np.ndarray, size: int, pick) -> np.ndarray:
    """`pick` (np.maximum or np.minimum) over the size × size pixels around each one of (H, W),
    size odd; the pixels at the border go on beyond it. Each round doubles the pixels covered."""
    for _ in range(2):  # along the columns, then along the rows
        grey, covered = np.pad(grey, [(size // 2, size // 2), (0, 0)], "edge").T, 1
        while covered < size:
            step = min(covered, size - covered)
            grey, covered = pick(grey[:, :-step], grey[:, step:]), covered + step
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
    wide = np.pad(smooth(grey), size, "edge")  # what is dark at the border is as if it went on
    return around(around(wide, size, np.maximum), size, np.minimum)[size:-size, size:-size]


def variation(grey: np.ndarray) -> float:
    """The total variation of (H, W): how much neighbouring pixels differ, in sum."""
    return sum(np.abs(np.diff(grey, axis=axis)).sum() for axis in (0, 1))


def ink_strength(grey: np.ndarray) -> np.ndarray:
    """How much ink is at each pixel of (H, W): 0 is paper, 1 as dark (or as light) as can be.

    The border is paper. Where it is of one grey, as in a drawing, ink is what differs from it.
    Where it is not, as in a photograph, the light may be uneven and the paper is found around each
    pixel: light falls on paper and ink alike, so the ratio of the two is the ink's own. Of dark and
    light ink, the one is taken that explains the picture more plainly: by smooth paper, which
    counts twice, and by ink that has no edges where the picture has none."""
    rim = border(grey)
    paper = np.median(rim)
    noisy = (np.abs(rim - paper) > 0.5).mean() > 0.5  # a drawing's paper is of one grey exactly
    if noisy or unevenness(grey) > UNEVEN:
        under_dark, under_light = paper_under(grey), 255 - paper_under(255 - grey)
        dark, light = (2 * variation(under) + variation(smooth(grey) - under)
                       for under in (under_dark, under_light))
        return 1 - grey / under_dark.clip(1) if dark < light else (grey - under_light) / grey.max()
    if grey.mean() < paper:
        return 1 - grey / paper
    return (grey - paper) / max(255 - paper, 1)


def otsu(values: np.ndarray) -> float:
    """The threshold that splits values of 0 to 1 into two groups with the least variance within
    (N. Otsu, "A threshold selection method from gray-level histograms", 1979)."""
    counts, edges = np.histogram(values, 128, (0, 1))
    below, sums = counts.cumsum(), (counts * (edges[1:] + edges[:-1]) / 2).cumsum()
    above = below[-1] - below
    means_apart = sums / below.clip(1) - (sums[-1] - sums) / above.clip(1)
    return float(edges[1 + (below * above * means_apart**2).argmax()])


def threshold(strength: np.ndarray) -> float:
    """The strength from which (H, W) is certainly ink. A digit covers little of a large picture, so
    what is within the noise of the paper is left out before Otsu's method splits the rest. Paper is
    most of the border or, with a table there, most of the picture: the lower of the two floors is
    taken. Raises FormatError where nothing is left."""
    floors = []
    for paper in border(strength), strength:
        middle = np.median(paper)
        noise = 1.48 * np.median(np.abs(paper - middle))  # the standard deviation, if it is normal
        floors.append(middle + 6 * noise)
    floor = max(0.08, min(floors))
    if strength.max() < 1.3 * floor:
        raise FormatError(NO_INK)
    return max(floor, otsu(strength[strength > floor]))


# --- The pieces of ink ----------------------------------------------------------------------------

FAINT = 0.6  # of the threshold: a stroke's faint end, if it is connected to what is certainly ink


def pieces(mask: np.ndarray) -> np.ndarray:
    """Number the connected pieces of (H, W) bool from 0, diagonal neighbours included, in reading
    order; -1 outside of them. All pixels at once: the number of each becomes the lowest among its
    neighbours', then that pixel's own, so that a piece of any shape is done in a few rounds."""
    pixel = np.full(mask.shape, -1)
    pixel[mask] = number = np.arange(mask.sum())
    pairs = [(pixel[:, :-1], pixel[:, 1:]), (pixel[:-1], pixel[1:]),
             (pixel[:-1, :-1], pixel[1:, 1:]), (pixel[:-1, 1:], pixel[1:, :-1])]
    a, b = np.concatenate([np.stack([a, b])[:, (a >= 0) & (b >= 0)] for a, b in pairs], 1)
    while (number[a] != number[b]).any():
        one, other = number[a], number[b]
        np.minimum.at(number, np.maximum(one, other), np.minimum(one, other))
        while (number[number] != number).any():
            number = number[number]
    pixel[mask] = np.unique(number, return_inverse=True)[1]
    return pixel


def boxes(label: np.ndarray) -> np.ndarray:
    """The box of each numbered piece of (H, W): (pieces, 4) of top, left, bottom, right, the last
    two excluded."""
    y, x = np.nonzero(label >= 0)
    box = np.tile([label.size, label.size, 0, 0], (label.max() + 1, 1))
    for side, (pick, values) in enumerate([(np.minimum, y), (np.minimum, x),
                                           (np.maximum, y + 1), (np.maximum, x + 1)]):
        pick.at(box[:, side], label[y, x], values)
    return box


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of (H, W) bool, of which some must be true."""
    label = pieces(mask)
    return label == np.bincount(label[mask]).argmax()


def opening(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) bool without whatever is narrower than `size` pixels."""
    return around(around(mask, size, np.minimum), size, np.maximum)


def lines_across(mask: np.ndarray, size: int) -> np.ndarray:
    """Which rows of (H, W) bool are part of a line from end to end: (H,) bool. It may lean and have
    gaps, both by up to `size` pixels, an odd number: a thin one is found in as many rows."""
    return around(mask, size, np.maximum).mean(1) > 0.95


def without_frame(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool without straight lines along its sides, from end to end, a little aslant perhaps:
    the borders of a cell in a form."""
    rest = mask.copy()
    for turns in range(4):
        side, inner = np.rot90(mask, turns), np.rot90(rest, turns)  # views, the side on top
        depth, lean = len(side) // 10 + 2, len(side) // 120 + 1
        lines = np.flatnonzero(lines_across(side[: depth + lean], 2 * lean + 1)[:depth])
        end = lines[-1] + lean + 1 if lines.size else 0
        if 0 < end < len(side) and side[end : end + 3].mean() < 0.5:  # else a margin of paper
            inner[:end] = False
    return rest


def without_rules(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool without thin straight lines from side to side, if there are several: those of
    ruled or squared paper. A single one may be the bar of a 4 cut out closely."""
    rest = mask.copy()
    size = 2 * (max(mask.shape) // 120 + 1) + 1  # pixels that a line may be thick, or lean over
    thick = opening(mask, size)
    for picture, inner, strokes in (mask, rest, thick), (mask.T, rest.T, thick.T):  # views
        full = lines_across(picture, size)
        depth = len(full) // 10
        starts = np.diff(full[depth : len(full) - depth].astype(int)) > 0
        if starts.sum() >= 2 and full.mean() < 0.5:
            lines = np.convolve(full, np.ones(size), "same") > 0
            inner[lines] &= strokes[lines]
    return rest


def without_lines(mask: np.ndarray, sizes=(1, 3, 5, 7, 9)) -> np.ndarray:
    """(H, W) bool without the lines of a form or of ruled paper: those along the sides, and thin
    ones that lead from the digit to the border, which an opening of one of the sizes takes away.
    Where a line was connected to the digit, only if that is clear of the border without it: it may
    be the bar of a 7 cut out closely."""
    unframed = without_frame(mask)
    choices = [(mask, 0)]  # what may be the ink, and how many pixels clear of the border it must be
    if (unframed != mask).any() and unframed.any():
        label = pieces(mask)
        connected = (label == label[largest(unframed)][0]) & ~unframed
        choices.insert(0, (unframed, len(mask) // 60 if connected.any() else -1))
    for ink, margin in choices:
        enough = 0.6 * largest(ink).sum()
        for size in sizes:
            rest = opening(ink, size)
            y, x = np.nonzero(largest(rest)) if rest.any() else ([], [])
            if len(y) < enough:
                break
            if min(y.min(), x.min(), len(mask) - 1 - y.max(), mask.shape[1] - 1 - x.max()) > margin:
                return rest
    return mask


@dataclass
class Found:
    """The digit in a picture: strength of the ink, the strength from which it is ink, which pixels
    are the digit's, (h, w) float32 and bool, its box (top, left, bottom, right), and whether it
    looks like several digits."""
    strength: np.ndarray
    edge: float
    mask: np.ndarray
    box: np.ndarray
    several: bool


def choose_pieces(strength: np.ndarray) -> Found:
    """Find the digit in (H, W): the piece with the most ink, apart from strips along the border
    (the edge of a table, a ruled line). Others join it if they are as dark, and near, like the
    detached bar of a 5, or beside it and as high, like another digit. Raises FormatError."""
    sure = threshold(strength)
    edge = FAINT * sure
    label = pieces(without_lines(without_rules(strength > edge)))
    owner, values = label[label >= 0], strength[label >= 0]
    ink, area = np.bincount(owner, values), np.bincount(owner)
    box, peak = boxes(label), np.zeros(len(area))
    np.maximum.at(peak, owner, values)
    height, width = (box[:, 2:] - box[:, :2]).T
    size = np.maximum(height, width)
    rim = border(label)
    touching = np.bincount(rim[rim >= 0], minlength=len(size)) / size  # how much is at the border
    main = (ink * (peak > sure) * (1.02 - touching.clip(0, 1))).argmax()
    # A sheet that reaches the border was passed over for something written on it: take the sheet.
    sheet = area.argmax()
    holds = (box[sheet, :2] <= box[main, :2]).all() and (box[sheet, 2:] >= box[main, 2:]).all()
    large = area[sheet] > max(0.2 * label.size, 0.5 * height[sheet] * width[sheet])
    if holds and large and (rim == sheet).mean() < 0.5:
        main = sheet
    if size[main] < 0.03 * max(label.shape) or area[main] < 6:
        raise FormatError(NO_INK)
    gap_y, gap_x = np.maximum(box[:, :2] - box[main, 2:], box[main, :2] - box[:, 2:]).T
    part = ink / ink[main]
    like = (peak > sure) & (part / area > 0.5 / area[main]) & (touching < 0.5)
    gap, length = np.maximum(gap_y, gap_x) / size[main], size / size[main]
    near = ((gap < 0.25) & (length < 1.2) & (part > 0.02)) | ((gap < 0.4) & (part > 0.1))
    # Beside it and as high: another digit.
    digit = (gap_y < 0) & (abs(np.log(height / height[main])) < 0.5) & (part > 0.25)
    keep = like & (near | digit)
    keep[main] = True
    box = np.append(box[keep, :2].min(0), box[keep, 2:].max(0))
    several = bool((keep & digit & (gap_x > 0)).any())
    return Found(strength, edge, np.append(keep, False)[label], box, several)


def likeness(mask: np.ndarray) -> float:
    """How much (H, W) bool looks like ink on paper: apart from a frame (in fewer pixels, a stroke
    would pass for one) it is seldom at the border, more seldom in the corners, and most of it is
    one piece; -1 to 2. To be compared with that of the paper, which is at the border and cut up."""
    ink = without_frame(mask) if max(mask.shape) > BOX else mask
    if not ink.any():
        return -1
    one_piece = largest(ink).sum() / ink.sum()
    return 1 + one_piece - border(ink).mean() - corners(ink).mean()


def with_margin(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) with a margin of paper around it, if it is a digit cut out of a drawing so closely
    that its border is neither all paper nor all ink: it is of two greys, or between them. What may
    be a photograph, framed, a shadow or a sheet on a table is left as it is."""
    small = shrink(rgb, WORK)
    grey = to_grey(small)
    if unevenness(grey) <= UNEVEN:
        return rgb
    light = (grey - grey.min()) / np.ptp(grey)
    light = light > otsu(light)
    low, high = np.median(grey[~light]), np.median(grey[light])
    level = np.abs((grey - low) / max(high - low, 1) - 0.5)  # 0.5 is one of the two
    photograph = (level > 0.65).mean() > 0.005 or (level < 0.35).mean() > 0.15
    if photograph or any((without_frame(mask) != mask).any() for mask in (light, ~light)):
        return rgb
    ink = light if likeness(light) > likeness(~light) else ~light
    if not border(ink).any():  # it has its margin, or is a sheet on a table
        return rgb
    if largest(~ink).sum() > 0.97 * (~ink).sum():  # no digit cuts it up: it may be a shadow
        return rgb
    # A sheet on a table. The square, for a 1 that is cut out fills its narrow picture, too.
    if corners(ink).any() and ink.sum() > 0.6 * max(ink.shape) ** 2:
        return rgb
    margin = max(rgb.shape) // 10 + 1
    wide = np.empty((rgb.shape[0] + 2 * margin, rgb.shape[1] + 2 * margin, 3), rgb.dtype)
    wide[:] = np.median(small[~ink], axis=0)
    wide[margin:-margin, margin:-margin] = rgb
    return wide


def filled(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool with its holes filled."""
    outside = pieces(~np.pad(mask, 1)) == 0  # connected to the corner of the padding
    return ~outside[1:-1, 1:-1]


def in_sheet(digit: Found) -> tuple[np.ndarray, float] | None:
    """Where to look again, as a box and a margin for `crop`, if the "ink" is a sheet of paper on a
    dark table, or a canvas in a dark frame: it fills much of the picture, and of the rectangle
    around it, turned as it may lie, and encloses something, or something is cut out of its edge.
    Or if it is a frame, a line around something written. None if it is neither."""
    top, left, bottom, right = digit.box
    inside = digit.mask[top:bottom, left:right]
    if inside.size < 0.3 * digit.mask.size:
        return None
    whole = filled(inside)
    y, x = np.nonzero(whole)
    turns = [(np.cos(angle), np.sin(angle)) for angle in np.radians(range(-45, 45, 3))]
    rectangle = min((np.ptp(c * x + s * y) + 1) * (np.ptp(c * y - s * x) + 1) for c, s in turns)
    ink, area = inside.sum() / rectangle, whole.sum() / rectangle
    enclosing = area > 0.86 and area - ink > 0.002
    notched = border(inside).mean() > 0.9 and ink < 0.97
    if ink > 0.5 and (enclosing or notched):
        return digit.box, -0.04
    label = pieces(inside)
    box = boxes(label)  # the line of a frame has the largest one; a thick digit has more ink
    line = label == (box[:, 2:] - box[:, :2]).prod(1).argmax()
    canvas = filled(line)
    written = ((digit.strength[top:bottom, left:right] > digit.edge) | inside) & canvas & ~line
    if canvas.mean() > 0.75 and line.mean() < 0.3 and written.any(1).mean() > 0.3:
        y, x = np.nonzero(written)
        return np.array([y.min(), x.min(), y.max() + 1, x.max() + 1]) + [top, left] * 2, 0.05
    return None


def crop(rgb: np.ndarray, part: np.ndarray, margin: float) -> np.ndarray:
    """Cut a box, in parts of the sides, out of (H, W, 3), with a margin, in parts of its
    longer side."""
    top, left, bottom, right = part * (rgb.shape[:2] * 2)
    sides = bottom - top, right - left
    margin = max(margin * max(sides), -min(sides) / 4)  # at least half of the shorter side stays
    top, left = max(0, int(top - margin)), max(0, int(left - margin))
    return rgb[top : int(bottom + margin) + 1, left : int(right + margin) + 1]


def find_digit(rgb: np.ndarray) -> tuple[np.ndarray, Found]:
    """The part of (H, W, 3) that was looked at last, grey, and the digit in it. Looks again,
    closer, where it is far, on a sheet of paper or in a frame. Raises FormatError."""
    whole = with_margin(rgb)
    cut_out, rgb = whole is not rgb, whole
    for _ in range(3):
        grey = to_grey(shrink(rgb, WORK))
        grey = resize(grey, min(WORK, 4 * max(grey.shape)))
        digit = choose_pieces(ink_strength(grey))
        sides = digit.mask.shape * 2
        part = digit.box / sides
        if not cut_out and (sheet := in_sheet(digit)):
            box, margin = sheet
            rgb = crop(rgb, box / sides, margin)
        elif (part[2:] - part[:2]).max() < 0.4 and max(rgb.shape) > WORK:
            rgb = crop(rgb, part, 0.5)
        else:
            break
    return grey, digit


# --- A small picture ------------------------------------------------------------------------------

def is_shaded(grey: np.ndarray) -> bool:
    """Whether a small picture (H, W) is a photograph made small: its border is uneven, and not that
    of a digit cut out closely, which has paper of one grey, and ink as strong as anywhere."""
    rim = (border(grey) - grey.min()) / max(np.ptp(grey), 1)
    one_grey = max((rim < 0.08).mean(), (rim > 0.92).mean())
    cut_out = rim.min() < 0.2 and rim.max() > 0.8 and one_grey > 0.3
    return max(grey.shape) > BOX and unevenness(grey) > UNEVEN and not cut_out


def few_pixels(rgb: np.ndarray) -> np.ndarray | None:
    """(H, W, 3) as a grey picture (h, w) of at most SMALL pixels a side if it has no more to tell:
    it is as small, or was enlarged from one. None if it has more, or is shaded."""
    changes = [np.flatnonzero((rgb[1:] != rgb[:-1]).any((1, 2))) + 1,
               np.flatnonzero((rgb[:, 1:] != rgb[:, :-1]).any((0, 2))) + 1]
    block = np.gcd.reduce(np.concatenate([*changes, rgb.shape[:2]]))  # pixels became squares
    grey = to_grey(shrink(rgb[::block, ::block], WORK))
    if max(grey.shape) > SMALL:  # or a smooth surface
        small = resize(grey, SMALL)
        again = weights(len(small), len(grey)) @ small @ weights(small.shape[1], grey.shape[1]).T
        apart = np.abs(again - grey)
        # The mean, too: a thick digit in half a shadow differs little anywhere, but everywhere.
        if (unevenness(grey) >= 0.6 or apart.max() >= 0.2 * np.ptp(grey)
                or apart.mean() >= 0.04 * grey.std()):
            return None
        grey = small
    return None if is_shaded(grey) else grey


def draw_small(grey: np.ndarray) -> np.ndarray:
    """(H, W) of a few dozen pixels, 0 to 255, becomes a drawing (20, w) or (h, 20), 0 to 1. There a
    pixel is about as wide as a stroke, and its grey says how much of it is ink: a threshold would
    close the loops. Such a picture is a digit cut out, which may touch the border on all sides."""
    low, high = grey.min(), grey.max()
    if high - low < 20:
        raise FormatError(NO_INK)
    light = grey > (low + high) / 2
    if likeness(light) < likeness(~light):
        grey, light, low, high = -grey, ~light, -high, -low
    paper = np.median(border(grey)[~border(light)]) if not border(light).all() else low
    ink = (grey - paper) / (high - paper)
    mask = ink > 0.25
    y, x = np.nonzero(without_lines(mask, sizes=[1]) if max(ink.shape) > BOX else mask)
    return resize(ink[y.min() : y.max() + 1, x.min() : x.max() + 1].clip(0, 1), BOX)


# --- The digit as MNIST draws it ------------------------------------------------------------------

FINE = 4  # it is drawn this many times finer, and averaged down at the end
THIN, THICK = 1.9, 3.6  # pixels: the strokes of most MNIST digits are between these


def distance(inside: np.ndarray) -> np.ndarray:
    """How many pixels each pixel of (H, W) bool is from the edge of the shape: float32, positive
    inside, negative outside. First the nearest in each column, then the nearest of those."""
    y, x = (np.arange(n, dtype=np.float32) for n in inside.shape)
    down, along = (y[:, None] - y) ** 2, (x[:, None] - x) ** 2
    squares = []
    for other in (~inside, inside):
        near = (down[:, :, None] + np.where(other, 0, np.float32(1e9))).min(1)
        squares.append((near[:, None] + along).min(2))
    return np.where(inside, np.sqrt(squares[0]) - 0.5, 0.5 - np.sqrt(squares[1]))


def stroke_width(inside: np.ndarray) -> float:
    """The mean width of the strokes of (H, W) bool, in pixels: across a stroke, the mean distance
    to its edge is a quarter of its width."""
    return 4 * float(distance(np.pad(inside, 1))[1:-1, 1:-1][inside].mean())


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
    inside = np.pad(solid(resize(strength, BOX * FINE - 2 * margin)), margin + 1)
    inside = distance(inside)[1:-1, 1:-1] > -grow
    # Padded to whole pixels, then averaged: the grey levels of anti-aliasing.
    spare = [(-n % FINE // 2, -(-n % FINE // -2)) for n in inside.shape]
    inside = np.pad(inside, spare)
    return inside.reshape(inside.shape[0] // FINE, FINE, -1, FINE).mean((1, 3))


def place(drawing: np.ndarray) -> np.ndarray:
    """(h, w) of 0 to 1, at most 28, becomes (28, 28) uint8, the centre of mass at the centre."""
    picture = np.zeros((SIDE, SIDE), np.uint8)
    corner = []
    for axis, length in enumerate(drawing.shape):
        centre = drawing.sum(1 - axis) @ (np.arange(length) + 0.5) / drawing.sum()
        corner.append(min(max(round(SIDE / 2 - centre), 0), SIDE - length))
    y, x = corner
    picture[y : y + drawing.shape[0], x : x + drawing.shape[1]] = np.rint(255 * drawing)
    return picture


def is_mnist(rgba: np.ndarray) -> bool:
    """Whether a picture is as MNIST's are already: 28 × 28, grey on pure black, the digit 20
    pixels long (a few of MNIST's are 18 or 19), its centre of mass at the centre."""
    if rgba.shape != (SIDE, SIDE, 4) or rgba[..., 3].min() < 255 or np.ptp(rgba[..., :3], 2).any():
        return False
    grey = rgba[..., 0].astype(float)
    if border(grey).any() or grey.max() < 128:
        return False
    size = max(np.ptp(axis) + 1 for axis in np.nonzero(grey))
    middle = np.arange(SIDE) - (SIDE - 1) / 2
    return BOX - 2 <= size <= BOX and max(abs(middle @ grey.sum(k)) for k in (0, 1)) < grey.sum()


def look(rgba: np.ndarray) -> tuple[np.ndarray, bool]:
    """`mnist_style` of a picture, and whether it looks like more than one digit."""
    if is_mnist(rgba):
        return rgba[..., 0].copy(), False
    rgb = composite(rgba)
    grey = few_pixels(rgb)
    if grey is not None:
        return place(draw_small(grey)), False
    _, digit = find_digit(rgb)
    strength = digit.strength / (2 * digit.edge)  # 0.5 at the edge of the ink
    strength = np.where(digit.mask, strength, strength.clip(0, 0.49)).clip(0, 1)
    top, left, bottom, right = digit.box
    return place(draw(strength[top:bottom, left:right])), digit.several


def mnist_style(rgba: np.ndarray) -> np.ndarray:
    """Any picture, (H, W, 4) uint8, becomes an MNIST-like digit, (28, 28) uint8, light ink on
    black. Raises FormatError where there is no ink."""
    return look(rgba)[0]


def steps(rgba: np.ndarray) -> np.ndarray:
    """What becomes of a picture, side by side, (h, w) uint8: grey, the paper under it, the ink, all
    of it above the threshold, the digit's pieces, and the digit as the network sees it. Of a small
    picture, the first and the last: the others are left out."""
    seen, rgb = np.kron(mnist_style(rgba), np.ones((12, 12))), composite(rgba)
    grey = few_pixels(rgb)
    if grey is not None:
        parts = [np.kron(grey, np.ones((len(seen) // max(grey.shape),) * 2))]
    else:
        grey, digit = find_digit(rgb)
        ink = digit.strength > digit.edge
        parts = [grey, paper_under(grey), 255 * digit.strength.clip(0, 1), 255 * ink,
                 255 * digit.mask]
    height = max(len(seen), len(parts[0]))
    tall = [np.pad(part, [(0, height - len(part)), (0, 8)]) for part in [*parts, seen]]
    return np.hstack(tall)[:, :-8].clip(0, 255).astype(np.uint8)


# --- The answer -----------------------------------------------------------------------------------

BATCH = 200  # pictures that are classified, and answered, at once


@dataclass
class Answer:
    """What there is to say about one picture."""
    image: str  # the path as it was given
    index: int | None  # in an IDX file
    error: str = ""  # why nothing else is known
    several: bool = False
    seen: np.ndarray | None = None  # (28, 28) uint8
    probabilities: list[float] | None = None

    @property
    def name(self) -> str:
        return printable(self.image if self.index is None else f"{self.image}[{self.index}]")

    def best(self, count: int) -> list[int]:
        """The most probable classes, the best first."""
        return sorted(range(len(self.probabilities)), key=lambda k: -self.probabilities[k])[:count]


@functools.cache  # it can be read only once
def standard_input() -> bytes:
    return sys.stdin.buffer.read(1 << 30) if sys.stdin else b""


def pictures(path: str, index: list[int] | None) -> list:
    """The pictures at a path: a list of (path, index in an IDX file or None, a function that reads
    (H, W, 4) uint8 RGBA). Raises FormatError, OSError or UsageError."""
    if not path:
        raise UsageError("the name of a picture is empty")
    if path == "-":
        return [(path, None, lambda: read_picture(standard_input()))]
    if Path(path).is_dir():
        if index is not None:
            raise UsageError(f"--index is for IDX files; {path} is a folder")
        files = pictures_in(Path(path))
        if not files:
            raise FormatError("expected pictures in this folder, found none")
        return [(str(file), None, lambda file=file: read_picture(read_file(file)))
                for file in files]
    with open_file(path) as file:
        head = file.read(3)
    if not may_be_idx(head):
        if index is not None:
            raise UsageError(f"--index is for IDX files; {path} is another file")
        return [(path, None, lambda: read_picture(read_file(path)))]
    images = read_idx(path)
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        raise FormatError("expected images, three dimensions of unsigned bytes, "
                          f"found {shape_text(images.shape)} of {images.dtype}")
    for i in index or []:
        if i >= len(images):
            raise UsageError(f"--index {i}: {path} has {len(images):,} images, counted from 0")
    return [(path, i, lambda i=i: np.dstack([images[i]] * 3 + [np.full_like(images[i], 255)]))
            for i in (range(len(images)) if index is None else index)]


def read_all(paths: list[str], index: list[int] | None):
    """Yield an Answer a picture, without its probabilities. A bad file does not stop the others."""
    for path in paths:
        try:
            found = pictures(path, index)
        except (FormatError, OSError) as error:
            yield Answer(path, None, reason(error, path))
            continue
        for name, i, read in found:
            answer = Answer(name, i)
            try:
                answer.seen, answer.several = look(read())
            except (FormatError, OSError) as error:
                answer.error = reason(error, name)
            yield answer


def reason(error: Exception, path: str) -> str:
    """What an error says, without the path: that stands beside it."""
    return (getattr(error, "strerror", None) or str(error)).removeprefix(f"{path}: ")


def batches(answers):
    """Lists of answers, to be classified at once: BATCH of them, or what a second has brought."""
    batch, started = [], time.monotonic()
    for answer in answers:
        batch.append(answer)
        if len(batch) == BATCH or time.monotonic() - started > 1:
            yield batch
            batch, started = [], time.monotonic()
    if batch:
        yield batch


def classify(net: model.Network, answers: list[Answer], device: torch.device) -> None:
    """Fill in the probabilities of a batch of answers."""
    good = [answer for answer in answers if not answer.error]
    if good:
        images = torch.from_numpy(np.stack([answer.seen for answer in good])).to(device)
        for answer, row in zip(good, predict(net, images).exp().tolist()):
            answer.probabilities = row


def text_line(answer: Answer, width: int, top: int) -> str:
    if answer.error:
        return f"{answer.name:<{width}}   error: {answer.error}"
    p, digit = answer.probabilities, answer.best(1)[0]
    return (f"{answer.name:<{width}}   {digit:<{len(str(len(p) - 1))}}  {p[digit]:6.1%}      "
            + "   ".join(f"{k} {p[k]:.1%}" for k in answer.best(top)))


def json_line(answer: Answer) -> str:
    item = {"image": answer.image}
    if answer.index is not None:
        item["index"] = answer.index
    if answer.error:
        item["error"] = answer.error
    else:
        p, digit = answer.probabilities, answer.best(1)[0]
        item.update(digit=digit, confidence=p[digit], probabilities=p)
        if answer.several:
            item["warning"] = SEVERAL
    return json.dumps(item)


def as_text(answer: Answer, encoding: str) -> str:
    """What the network saw, two pixels a character, beside a bar for each of ten classes."""
    marks = " ▀▄█"  # neither pixel, the upper, the lower, both
    try:
        marks.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        marks = " '.#"
    ink = answer.seen > 100
    rows = ["".join(marks[a + 2 * b] for a, b in zip(*pair)) for pair in zip(ink[::2], ink[1::2])]
    p, room = answer.probabilities, max(0, min(30, shutil.get_terminal_size().columns - SIDE - 14))
    bars = [f"{k:>4} {p[k]:6.1%} {marks[3] * round(room * p[k])}" for k in sorted(answer.best(10))]
    return "\n".join(f"{row} {bar}".rstrip() for row, bar in zip(rows, [""] * 2 + bars + [""] * 12))


def contact_sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """(28, 28) pictures in rows of ten, as one (H, W) uint8."""
    columns = min(10, len(pictures))
    pictures = pictures + [np.zeros((SIDE, SIDE), np.uint8)] * (-len(pictures) % columns)
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    return np.vstack([np.hstack(row) for row in rows])


# --- At the command line --------------------------------------------------------------------------

def make_parser() -> Parser:
    parser = Parser("Read the handwritten digit in any picture.")
    parser.add_argument("images", nargs="+", metavar="IMAGE",
                        help="pictures, folders of pictures, IDX files, or - for standard input")
    parser.add_argument("--checkpoint", metavar="FILE", default=argparse.SUPPRESS,
                        help="the model (default: model.pt if it is here, else pretrained.pt)")
    parser.add_argument("--model", metavar="NAME", default=argparse.SUPPRESS,
                        help="the network, for a checkpoint that is a bare state_dict: "
                        + ", ".join(model.MODELS))
    parser.add_argument("--index", metavar="I,J,...", default=argparse.SUPPRESS,
                        help="which images of an IDX file, counted from 0 (default: all)")
    parser.add_argument("--top", type=int, default=3, metavar="N",
                        help="how many of the best digits to print")
    parser.add_argument("--show", action="store_true",
                        help="draw what the network sees, and a bar a digit")
    parser.add_argument("--save-seen", metavar="OUT.png", default=argparse.SUPPRESS,
                        help="write what the network sees as a picture, several in rows of ten")
    parser.add_argument("--save-steps", metavar="OUT.png", default=argparse.SUPPRESS,
                        help="write what becomes of the first picture, step by step")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps or auto")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON object an image to standard output")
    return parser


def index_list(text: str | None) -> list[int] | None:
    if text is None:
        return None
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isdecimal() and len(number) < 12 for number in numbers):
        raise UsageError(f"--index {text}: expected numbers from 0 with commas, like 0,7,42")
    return [int(number) for number in numbers]


def main(arguments: list[str]) -> int:
    options = make_parser().parse_args(arguments)
    if options.top < 1:
        raise UsageError(f"--top must be at least 1, not {options.top}")
    index = index_list(getattr(options, "index", None))
    device = pick_device(options.device)
    set_threads()
    checkpoint = options.checkpoint if hasattr(options, "checkpoint") else model.find_checkpoint()
    net = model.load(checkpoint, device, getattr(options, "model", None))
    say(f"checkpoint {checkpoint}", sys.stderr)
    seen, failed, width = [], False, 0
    for batch in batches(read_all(options.images, index)):
        classify(net, batch, device)
        width = max(width, min(40, max(len(answer.name) for answer in batch)))
        for answer in batch:
            say(json_line(answer) if options.json else text_line(answer, width, options.top))
            failed |= bool(answer.error)
            seen.append(np.zeros((SIDE, SIDE), np.uint8) if answer.error else answer.seen)
            if answer.several:
                say(f"warning: {answer.name}: {SEVERAL}", sys.stderr)
            if options.show and not answer.error:
                stream = sys.stderr if options.json else sys.stdout
                say(as_text(answer, stream.encoding), stream)
    if hasattr(options, "save_steps") and seen[0].any():  # else its error has been told
        write_png(options.save_steps, steps(pictures(options.images[0], index)[0][2]()))
    if hasattr(options, "save_seen"):
        write_png(options.save_seen, contact_sheet(seen))
    return int(failed)


if __name__ == "__main__":
    run_script(main)
