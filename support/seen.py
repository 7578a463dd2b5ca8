"""What the network saw of a picture: as text, as a sheet of digits, and with all candidates."""
import numpy as np

from support import ink
from support.answers import Answer
from support.command_line import say, shortened
from support.errors import require
from support.mnist_style import SIDE, resize
from support.pictures import check_not_read

MARKS = " ▀▄█"  # two pixels, one above the other: neither is ink, the upper, the lower, both
BAR = 30  # characters


def check_output(flag: str, out: str | None, inputs: list) -> None:
    """Raise UsageError if the picture `out`, which a flag names, is not to be written: it is one of
    the files that are read, or its name does not end as PNG's do."""
    check_not_read(flag, out, inputs)
    require(not out or out.lower().endswith(".png"), flag, "a name that ends in .png", out)


def show(answer: Answer, with_other: bool, file) -> None:
    """Print each digit of an answer as the network saw it, and its probabilities."""
    for reading in answer.digits:
        other = reading.other if with_other else None
        say(as_text(reading.seen, reading.probabilities, reading.names, other), file)


def as_text(seen: np.ndarray, probabilities: list[float], names: list[str],
            other: float | None) -> str:
    """A digit (28, 28) uint8, two pixels in a character, beside a bar for each of the ten most
    probable classes, and for *other*, unless that is None."""
    dark = (seen > 100).astype(int)
    rows = ["".join(MARKS[code] for code in codes) for codes in dark[::2] + 2 * dark[1::2]]
    likely = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])[:10]
    bars = [(shortened(names[k]), probabilities[k]) for k in sorted(likely)]
    if other is not None:
        bars.append(("other", other))
    width = max(5, *(len(name) for name, _ in bars))
    lines = []
    for i, row in enumerate(rows):
        if 1 <= i <= len(bars):
            name, chance = bars[i - 1]
            row += f" {name:>{width}} {chance:6.1%} {MARKS[3] * round(BAR * chance)}"
        lines.append(row.rstrip())
    return "\n".join(lines)


def contact_sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """(h, w) pictures of one size in rows of ten, as one (H, W) uint8."""
    if not pictures:
        return np.zeros((SIDE, SIDE), np.uint8)
    columns = min(10, len(pictures))
    blank = np.zeros_like(pictures[0])
    pictures = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)


def steps(rgb: np.ndarray, candidates: list[ink.Candidate],
          chosen: list[ink.Candidate]) -> np.ndarray:
    """How a picture (H, W, 3) was read, (h, w) uint8: on the left itself, grey, with a frame around
    each digit that was found; on the right all candidates, those that were chosen in a frame."""
    tiles = []
    for candidate in candidates:
        tile = np.pad(candidate.seen, 2)
        if candidate in chosen:
            tile = np.pad(candidate.seen, 1)
            tile = np.pad(tile, 1, constant_values=255)
        tiles.append(tile)
    sheet = contact_sheet(tiles)
    grey = resize(ink.to_grey(ink.shrink(rgb, ink.WORK)), ink.WORK).clip(0, 255)
    scale = max(grey.shape) / max(rgb.shape)
    for candidate in chosen:
        top, left, bottom, right = (candidate.box * scale).astype(int) + [-2, -2, 1, 1]
        top, left = max(top, 0), max(left, 0)
        bottom, right = min(bottom, len(grey) - 1), min(right, grey.shape[1] - 1)
        for side in (grey[top, left : right + 1], grey[bottom, left : right + 1],
                     grey[top : bottom + 1, left], grey[top : bottom + 1, right]):
            side[:] = 255 - side  # a view: the frame is drawn into the picture
    height = max(len(grey), len(sheet))
    parts = [np.pad(part, [(0, height - len(part)), (0, 8)]) for part in (grey, sheet)]
    return np.hstack(parts).astype(np.uint8)
