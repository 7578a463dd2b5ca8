"""Candidates that are no digit, taken apart: digits that touch, or that a paler line joins to each
other or to the edge of the picture."""
import numpy as np

from support.ink import FAINT, SAME_PLACE, Candidate, components
from support.mnist_style import draw, place


def part(candidate: Candidate, strength: np.ndarray, own_box: np.ndarray) -> Candidate:
    """A part of a candidate: what `strength` (h, w) has within a box in the candidate's pixels."""
    top, left, bottom, right = own_box
    scale = candidate.height / len(candidate.strength)
    box = np.tile(candidate.box[:2], 2) + own_box * scale
    at_border = candidate.at_border & (own_box == [0, 0, *strength.shape])
    strength = strength[top:bottom, left:right]
    return Candidate(place(draw(strength)), box, at_border, candidate.dark, strength,
                     part_of=candidate)


# Of the shorter side of a candidate: what is smaller is no digit of it. The longer side may be that
# of a line; with 0.5, 75 of 80 digits on ruled paper were read instead of 78.
LARGE = 0.3


def strongest(candidate: Candidate) -> list[Candidate]:
    """The large components of what is certainly ink in a candidate: without a paler line that joins
    them, like those of ruled paper. None if nothing comes off: if it is nearly the same box."""
    sure = 0.5 / FAINT  # the threshold itself: FAINT of it has the strength 0.5
    label, box = components(candidate.strength > sure)
    if not len(box):
        return []
    sides = box[:, 2:] - box[:, :2]
    large = (sides.max(1) > LARGE * min(label.shape)) & (sides.max(1) >= 6)
    smaller = sides.prod(1) < SAME_PLACE * label.size
    found = []
    for i in np.flatnonzero(large & smaller):
        strength = np.where(label == i, candidate.strength, 0) * np.float32(0.5 / sure)
        found.append(part(candidate, strength, box[i]))
    return found


VALLEYS = 6  # places where a candidate is cut, at the most
LEAST = 0.08  # of its ink that a piece has


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
            if right - left > 1.4 * height or (left, right) == (0, width) or len(y) < 6:
                continue
            own_box = np.array([y.min(), left + x.min(), y.max() + 1, left + x.max() + 1])
            piece = part(candidate, strength, own_box)
            piece.columns = (left, right)
            found.append(piece)
    return found


# --- Which pieces are taken, once a network has judged them ---------------------------------------

CUT_SURE = 0.7  # probability that each piece needs: there are many ways to cut


def without_spare_parts(candidates: list[Candidate]) -> list[Candidate]:
    """Judged candidates, of those that were cut only the best pieces, and no stroke that may be one
    of the paper's lines."""
    kept = [candidate for candidate in candidates
            if not candidate.was_cut and not may_be_line(candidate, candidates)]
    pieces = {}
    for candidate in candidates:
        if candidate.was_cut:
            pieces.setdefault(candidate.part_of, []).append(candidate)
    for of_one in pieces.values():
        kept += best_cut(of_one)
    return kept


# Times the height of a digit: a 1 beside it is no higher. Of 120 numbers on a line, 95 were read
# with 1.2 and with 1.5, with 1 92.
AS_HIGH = 1.2


def may_be_line(stroke: Candidate, candidates: list[Candidate]) -> bool:
    """Whether an upright stroke that was taken out of a candidate is a part of a line or of a frame
    more likely than a 1: no digit as high was taken out of the same one."""
    if not stroke.is_stroke or stroke.part_of is None:
        return False
    return not any(digit.part_of is stroke.part_of and not digit.is_stroke
                   and digit.certainty > CUT_SURE and stroke.height < AS_HIGH * digit.height
                   for digit in candidates)


# Of the height of what is cut: a piece that is lower, of ink that runs out of the picture, is a
# line. Of those 120 numbers, 95 were read with 0.15 and with 0.25, with 0.35 97.
LINE = 0.25


def is_line(piece: Candidate) -> bool:
    """Whether a piece is what is left of a line that joins digits to the edge of the picture."""
    return piece.part_of.cut_off and piece.height < LINE * piece.part_of.height


def best_cut(pieces: list[Candidate]) -> list[Candidate]:
    """Of judged pieces of one candidate, those side by side that cover it and whose least certain
    digit is the most certain, lines left out; none if that one is not certain enough."""
    # The column where a piece ends -> the least certainty up to there, and the pieces up to there.
    best = {0: (1.0, [])}
    for piece in sorted(pieces, key=lambda piece: piece.columns):
        start, end = piece.columns
        if start not in best:
            continue
        least, before = best[start]
        if not is_line(piece):
            least = min(least, piece.certainty)
        if end not in best or least > best[end][0]:
            best[end] = (least, [*before, piece])
    least, taken = best[max(best)]
    if least > CUT_SURE and len(taken) > 1:
        return [piece for piece in taken if not is_line(piece)]
    return []
