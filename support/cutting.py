"""Candidates that are no digit, taken apart: digits that touch, or that a paler line joins to the
edge of the picture; and the holes in them."""
import numpy as np

from support.ink import FAINT, SAME_PLACE, Candidate, components
from support.mnist_style import draw, place


def in_picture(candidate: Candidate, own_box: np.ndarray) -> np.ndarray:
    """A box (4,), or boxes (n, 4), in a candidate's own pixels, as they lie in the picture."""
    scale = candidate.height / len(candidate.strength)
    return np.tile(candidate.box[:2], 2) + own_box * scale


def part(candidate: Candidate, strength: np.ndarray, own_box: np.ndarray) -> Candidate:
    """A part of a candidate: what `strength` (h, w) has within a box in the candidate's pixels."""
    top, left, bottom, right = own_box
    box = in_picture(candidate, own_box)
    at_border = candidate.at_border & (own_box == [0, 0, *strength.shape])
    strength = strength[top:bottom, left:right]
    return Candidate(place(draw(strength)), box, at_border, candidate.dark, strength,
                     part_of=candidate)


# Of the shorter side of a candidate: what is smaller is no digit of it. The longer side may be that
# of a line; with 0.5, 75 of 80 digits on ruled paper were read instead of 78.
LARGE = 0.3
SMALLEST = 6  # pixels, of the longer side or of the ink: what has fewer is noise


def strongest(candidate: Candidate) -> list[Candidate]:
    """Of a candidate that runs out of the picture, the large components of what is certainly ink:
    without a paler line, of ruled paper or of a frame, that joins them to its edge. None if nothing
    comes off, if it is nearly the same box. An upright stroke is left out: it is of a frame, or of
    the edge of a sheet, rather than a 1. With these, 7 of 150 pages without a digit were answered
    above 90%, without them 4, and the digits were read as before."""
    if not candidate.cut_off:
        return []
    sure = 0.5 / FAINT  # the threshold itself: FAINT of it has the strength 0.5
    label, box = components(candidate.strength > sure)
    if not len(box):
        return []
    sides = box[:, 2:] - box[:, :2]
    large = (sides.max(1) > LARGE * min(label.shape)) & (sides.max(1) >= SMALLEST)
    smaller = sides.prod(1) < SAME_PLACE * label.size
    found = []
    for i in np.flatnonzero(large & smaller):
        strength = np.where(label == i, candidate.strength, 0) * np.float32(0.5 / sure)
        found.append(part(candidate, strength, box[i]))
    return [each for each in found if not each.is_stroke]


def holes(candidate: Candidate) -> list[np.ndarray]:
    """The boxes of the holes in a candidate, in pixels of the picture: top, left, bottom, right."""
    label, box = components(candidate.strength < 0.5)
    inside = (box[:, :2] > 0).all(1) & (box[:, 2:] < label.shape).all(1)
    large = (box[:, 2:] - box[:, :2]).max(1) >= SMALLEST
    return list(in_picture(candidate, box[inside & large]))


VALLEYS = 6  # places where a candidate is cut, at the most
LEAST = 0.08  # of its ink that a piece has
WIDEST = 1.4  # times the height of what is cut: a digit is no wider


def cut(candidate: Candidate) -> list[Candidate]:
    """All pieces of a candidate that may be several digits touching each other, cut upright in the
    valleys of the ink, where its columns have the least."""
    strength = candidate.strength
    height, width = strength.shape
    filled = (strength >= 0.5).sum(0)
    # The share of the ink that lies left of each column.
    left_of = np.append(0, filled.cumsum()) / max(filled.sum(), 1)
    places = []
    for x in np.argsort(filled, kind="stable"):
        if all(abs(left_of[x] - left_of[other]) >= LEAST for other in [0, width, *places]):
            places.append(int(x))
        if len(places) == VALLEYS:
            break
    places = [0, *sorted(places), width]
    found = []
    for i, left in enumerate(places):
        for right in places[i + 1 :]:
            y, x = np.nonzero(strength[:, left:right] >= 0.5)
            if right - left > WIDEST * height or (left, right) == (0, width) or len(y) < SMALLEST:
                continue
            own_box = np.array([y.min(), left + x.min(), y.max() + 1, left + x.max() + 1])
            piece = part(candidate, strength, own_box)
            piece.columns = (left, right)
            found.append(piece)
    return found


# --- Which pieces are taken, once a network has judged them ---------------------------------------

# Probability that each piece needs. With 0.7, 26 of 60 touching numbers were read instead of 28,
# and 97 of 300 letters for some digit, unsure, instead of 108.
CUT_SURE = 0.5


def without_spare_pieces(candidates: list[Candidate]) -> list[Candidate]:
    """Judged candidates, of those that were cut only the best pieces."""
    kept = [candidate for candidate in candidates if not candidate.was_cut]
    pieces = {}
    for candidate in candidates:
        if candidate.was_cut:
            pieces.setdefault(candidate.part_of, []).append(candidate)
    for of_one in pieces.values():
        kept += best_cut(of_one)
    return kept


def best_cut(pieces: list[Candidate]) -> list[Candidate]:
    """Of judged pieces of one candidate, those side by side that cover it and whose least certain
    digit is the most certain; none if that one is not certain enough."""
    # The column where a piece ends -> the least certainty up to there, and the pieces up to there.
    best = {0: (1.0, [])}
    for piece in sorted(pieces, key=lambda piece: piece.columns):
        start, end = piece.columns
        if start not in best:
            continue
        least, before = best[start]
        least = min(least, piece.certainty)
        if end not in best or least > best[end][0]:
            best[end] = (least, [*before, piece])
    least, taken = best[max(best)]
    if least > CUT_SURE and len(taken) > 1:
        return taken
    return []
