"""Read the handwritten digits in any picture.

    python infer.py digit.png              the number, its probability, and the next best digits
    python infer.py --show photo.jpg       with what the network sees, as text
    python infer.py drawings/ --json       every picture in a folder, one JSON object on each line
    python infer.py data/t10k-images-idx3-ubyte.gz --index 0,7,42
    python infer.py --draw                 a page to draw on, in the browser

A network that reads 99.6% of MNIST fails on a photograph: it has only ever seen one digit, light on
black, 20 pixels high, in the middle. So `support/ink.py` proposes whatever in the picture might be
a digit, drawn like that, and decides nothing. The network chooses: it has learned *other* as an
eleventh answer, from whatever is proposed that is no digit.
"""
import functools
import sys
from pathlib import Path

import model
from evaluate import Prediction, predict, predict_all
from idx_data import may_be_idx, read_idx, standardise
from support import canvas, ink, report
from support.answers import (Answer, Reading, answers, batches, index_list, list_pictures,
                             name_width)
from support.arrays import as_rgba
from support.command_line import Parser, add_reading_arguments, run_script, say
from support.cutting import cut, holes, strongest, without_spare_pieces
from support.errors import FormatError, UsageError, require
from support.ink import Candidate
from support.machine import pick_device, set_threads
from support.pictures import as_it_is
from support.png import write_png
from support.seen import check_output, contact_sheet, show, steps

import numpy as np
import torch

NO_DIGIT = "no digit found"


# --- What the network says ------------------------------------------------------------------------

def on_device_of(net: model.Network, seen: list[np.ndarray]) -> torch.Tensor:
    """Images (28, 28) uint8 as one tensor (N, 28, 28), where the network is."""
    return torch.from_numpy(np.stack(seen)).to(next(net.parameters()).device)


def judge(finder: model.Network, pictures: list[list[Candidate]]) -> None:
    """Fill in the probabilities (11,) of the candidates of some pictures, *other* last: all of them
    in one batch."""
    candidates = [candidate for found in pictures for candidate in found]
    if not candidates:
        return
    seen = on_device_of(finder, [candidate.seen for candidate in candidates])
    for candidate, row in zip(candidates, predict_all(finder, seen).exp().cpu().numpy()):
        candidate.probabilities = row


# --- Which candidates are chosen ------------------------------------------------------------------

SIZE_COUNTS = 2  # a candidate of half the size needs odds four times as good
SURE_ENOUGH = 0.5  # probability from which a candidate is a digit rather than not
POSSIBLE = 0.2  # and from which it is an answer where there is none: 7 of 300 digits of 8×8 more
# Of the best one's height: what is lower, or higher by as much, is no part of a number. Of 280
# numbers no whole digit had less than 0.63; with 0.45 a line of a frame, or an edge of a sheet, was
# a 1 beside the digit in 4 of 180 pictures. Without this, a decimal point is one, too.
LIKE = 0.55
ONE_PEN = 0.35  # the same of its stroke width: in 276 pictures of numbers none had less than 0.38
# Probability from which a candidate beside digits is one of them: of 280 composed numbers, 235 were
# read, without such candidates 225.
IN_COMPANY = 0.02


def score(candidate: Candidate) -> float:
    """How much speaks for a candidate among others that overlap it: the logarithm of the odds of
    its best digit, and its size, for a fragment of a digit is often a good 1."""
    chance = min(max(candidate.certainty, 1e-6), 1 - 1e-6)
    size = np.sqrt(candidate.area)  # not the longer side: lines, and edges of paper, look like a 1
    return float(np.log(chance / (1 - chance)) + SIZE_COUNTS * np.log(max(size, 1)))


def alike(a: Candidate, b: Candidate) -> bool:
    """Whether two candidates may be of one number: of the same ink and pen, and about as high."""
    as_high = LIKE < a.height / b.height < 1 / LIKE
    as_wide = ONE_PEN < a.pen / b.pen < 1 / ONE_PEN
    return a.dark == b.dark and as_high and as_wide


def choose(candidates: list[Candidate], single: bool = False) -> list[Candidate]:
    """Those of judged candidates that are digits: the best one, then each that the network calls a
    digit, too, and that `fits` the better ones, then what is hardly a digit by itself but stands
    beside them as one would. `single`: the best alone."""
    ranked = sorted(candidates, key=score, reverse=True)
    digits = [candidate for candidate in ranked if candidate.certainty > SURE_ENOUGH]
    if not digits:  # the best of all, though an unsure one
        return [candidate for candidate in ranked if candidate.certainty > POSSIBLE][:1]
    chosen = digits[:1]
    if single:
        return chosen
    unsure = [candidate for candidate in ranked
              if IN_COMPANY < candidate.certainty <= SURE_ENOUGH]
    for candidate in digits[1:] + unsure:
        if fits(candidate, chosen):
            chosen.append(candidate)
    return chosen


NEAR = 0.5  # of a digit's longer side: what is nearer belongs to the same writing


def fits(candidate: Candidate, chosen: list[Candidate]) -> bool:
    """Whether a candidate may be one more digit of the number whose digits are chosen so far: it is
    like the best one, overlaps none, and does not run out of the picture unless the best does.
    One that the network is unsure of has to be near: what is written beside a digit is a sloppy
    digit more often than not, and to leave it out would certainly be wrong."""
    best = chosen[0]
    runs_out = candidate.cut_off and not best.cut_off
    overlaps = any(ink.overlap(candidate, other) for other in chosen)
    sure = candidate.certainty > SURE_ENOUGH
    near = any(ink.gap(candidate, other) < NEAR * other.side for other in chosen)
    return alike(candidate, best) and not runs_out and not overlaps and (sure or near)


LARGE = 0.3  # of a digit's longer side: what is smaller is a dot or a speck
BESIDE_OTHERS = 0.5  # how far a digit is believed beside large ink that is no digit
CUT_OUT = 0.8  # and one that was cut out of such ink: of 100 such numbers, 80 were right
# And an upright stroke that runs out of the picture: it may be a 1 that is cut out closely, but in
# 500 composed pictures 23 of 23 were lines of the paper, its edges, or parts of letters.
RUNS_OUT = 0.5


def speaks_against(other: Candidate, digit: Candidate, chosen: list[Candidate]) -> bool:
    """Whether a candidate that is no digit makes a chosen one less probable: large ink of its kind
    beside it, for then the digit may be a part of a letter, or of a number that is not read."""
    if other.dark != digit.dark:
        return False
    large = LARGE < other.side / digit.side < 1 / LARGE
    near = ink.gap(digit, other) < NEAR * digit.side
    return large and near and not any(ink.overlap(other, each) for each in chosen)


def doubt(candidates: list[Candidate], chosen: list[Candidate]) -> None:
    """Make those chosen less probable that their place speaks against, or what is around them."""
    rest = [candidate for candidate in candidates
            if candidate.certainty <= SURE_ENOUGH and not candidate.cut_off]
    for digit in chosen:
        belief = 1.0
        if digit.was_cut:
            belief *= CUT_OUT
        if digit.is_stroke and digit.cut_off:
            belief *= RUNS_OUT
        if any(speaks_against(other, digit, chosen) for other in rest):
            belief *= BESIDE_OTHERS
        digit.probabilities = digit.probabilities * belief
        digit.probabilities[-1] += 1 - belief


ONE_ROW = 0.9  # of a digit's height: how far its middle may be above or below the one before it


def in_rows(chosen: list[Candidate]) -> list[list[Candidate]]:
    """Digits in rows from top to bottom, each from left to right. A digit belongs to the row that
    ends nearest to its level: rows may be slanted."""
    rows = []
    for candidate in sorted(chosen, key=lambda candidate: candidate.middle[1]):
        apart = [abs(candidate.middle[0] - row[-1].middle[0]) for row in rows]
        if apart and min(apart) < ONE_ROW * candidate.height:
            rows[int(np.argmin(apart))].append(candidate)
        else:
            rows.append([candidate])
    return sorted(rows, key=lambda row: np.mean([candidate.middle[0] for candidate in row]))


# --- Looking three times --------------------------------------------------------------------------

# Of the longer side: what is smaller is looked at from closer up, 1.4 times as fine. Of 70
# photographs with digits as high as 4% of it, 64 were read instead of 62; 2.5%, 29 instead of 5.
FAR = 0.7
TWO_WIDE = 0.6  # of its height: two 1s that touch are wider
# Candidates that are taken apart, at the most: with 6, one in 80 photographed numbers is lost.
APART = 12


def find_candidates(rgbs: list[np.ndarray], finder: model.Network, single: bool = False) -> list:
    """All judged candidates of each of some pictures (H, W, 3), and those that are its digits:
    pairs of lists. Each time it looks, the network judges those of all pictures at once."""
    found = [[] for _ in rgbs]
    for look in (look_at_whole, look_at_components, look_again):
        more = [look(rgb, candidates) for rgb, candidates in zip(rgbs, found)]
        judge(finder, more)
        found = [candidates + new for candidates, new in zip(found, more)]
    result = []
    for candidates in found:
        candidates = without_spare_pieces(candidates)
        chosen = choose(candidates, single)
        doubt(candidates, chosen)
        result.append((candidates, chosen))
    return result


def look_at_whole(rgb: np.ndarray, _) -> list[Candidate]:
    """A small picture (H, W, 3) is a digit cut out, most often: the whole of it."""
    return ink.whole(rgb)


def look_at_components(rgb: np.ndarray, candidates: list[Candidate]) -> list[Candidate]:
    """The components of the ink of any other, and of a small one that as a whole is no digit."""
    if choose(candidates):
        return []
    return ink.candidates(rgb)


def look_again(rgb: np.ndarray, candidates: list[Candidate]) -> list[Candidate]:
    """What is far away, once more from closer up; and what is no digit, taken apart: a line may
    join it to the edge of the picture, or it may be digits that touch."""
    found = look_closer(rgb, candidates)
    sure = [digit for digit in choose(candidates) if digit.certainty > SURE_ENOUGH]
    for candidate in no_digits(candidates):
        found += strongest(candidate)
        like = not sure or alike(candidate, sure[0])
        read = any(ink.overlap(candidate, digit) for digit in sure)
        if like and not read and candidate.width > TWO_WIDE * candidate.height:
            found += cut(candidate)
    return found


def look_closer(rgb: np.ndarray, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates of `where_to_look` in a large picture (H, W, 3), if that is a small part."""
    if max(rgb.shape) * FAR <= ink.WORK:
        return []
    boxes = where_to_look(candidates)
    if not boxes:
        return []
    box = np.array(boxes)
    margin = NEAR * (box[:, 2:] - box[:, :2]).max()
    low = np.maximum(box[:, :2].min(0) - margin, 0).astype(int)
    high = np.minimum(box[:, 2:].max(0) + margin + 1, rgb.shape[:2]).astype(int)
    if (high - low).max() > FAR * max(rgb.shape):
        return []
    return ink.candidates(rgb, np.append(low, high))


def where_to_look(candidates: list[Candidate]) -> list[np.ndarray]:
    """The boxes of the digits; if there are none, that of the largest hole in anything light, for
    what is too pale to be ink beside a dark table is a hole in its sheet of paper; without a hole,
    of what is most like a digit. Of 100 sheets on a table, 5 more were read."""
    digits = choose(candidates)
    if digits:
        return [digit.box for digit in digits]
    light = [candidate for candidate in no_digits(candidates) if not candidate.dark]
    found = [box for candidate in light for box in holes(candidate)]
    if found:
        return [max(found, key=lambda box: (box[2:] - box[:2]).max())]
    ranked = sorted(candidates, key=lambda candidate: candidate.certainty)
    return [candidate.box for candidate in ranked[-1:]]


def no_digits(candidates: list[Candidate]) -> list[Candidate]:
    """The largest of the judged candidates that are no digits: one for each place."""
    found = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.side):
        again = any(ink.same_place(candidate, other) for other in found)
        if not again and candidate.certainty <= SURE_ENOUGH:
            found.append(candidate)
    return found[:APART]


# --- Readings -------------------------------------------------------------------------------------

def read_pictures(net: model.Network, finder: model.Network, rgbs: list[np.ndarray],
                  single: bool = False) -> list[list[list[Reading]]]:
    """The digits in each of some pictures (H, W, 3), in rows from top to bottom, each from left to
    right: found by one network, and read by the same or another one, as far as the first holds
    them for digits. A network of plain pictures gives one reading of each."""
    if net.content == "plain":
        return [[[reading]] for reading in read_plain(net, rgbs)]
    found = [chosen for _, chosen in find_candidates(rgbs, finder, single)]
    return read_chosen(net, finder, found)


def read_chosen(net: model.Network, finder: model.Network,
                found: list[list[Candidate]]) -> list[list[list[Reading]]]:
    """What the candidates say that were chosen in each of some pictures: `read_pictures`."""
    digits = [candidate for chosen in found for candidate in chosen]
    if not digits:
        return [[] for _ in found]
    other = np.array([candidate.probabilities[-1] for candidate in digits])
    rows = np.array([candidate.probabilities[:-1] for candidate in digits])
    if net is not finder:
        seen = on_device_of(net, [candidate.seen for candidate in digits])
        rows = predict(net, seen).exp().cpu().numpy() * (1 - other[:, None])
    readings = {}
    for candidate, row, rest in zip(digits, rows, other):
        digit = int(row.argmax())
        readings[candidate] = Reading(digit, float(row[digit]), row.tolist(), float(rest),
                                      candidate.box.tolist(), candidate.seen, net.class_names)
    return [[[readings[candidate] for candidate in row] for row in in_rows(chosen)]
            for chosen in found]


def read_plain(net: model.Network, rgbs: list[np.ndarray]) -> list[Reading]:
    """What each picture (H, W, 3) as a whole is, prepared as the pictures of the training were."""
    if not rgbs:
        return []
    seen = [as_it_is(rgb, net.inverted) for rgb in rgbs]
    rows = predict(net, on_device_of(net, seen)).exp().cpu().numpy()
    return [Reading(int(row.argmax()), float(row.max()), row.tolist(), 0.0,
                    [0.0, 0.0, *map(float, rgb.shape[:2])], small, net.class_names)
            for rgb, small, row in zip(rgbs, seen, rows)]


def finder_for(net: model.Network) -> model.Network:
    """The network that finds the digits for `net`: itself, if it can, or if nothing is to find."""
    if net.other or net.content == "plain":
        return net
    return own_finder()


@functools.cache
def own_finder() -> model.Network:
    """The network of pretrained.pt, which finds the digits for any other."""
    path = Path(__file__).with_name("pretrained.pt")
    finder = model.load(path)
    if not finder.other:
        raise FormatError(f"{path}: expected a network that knows what is no digit, found one "
                          "without; get the file again, or make it: python train.py "
                          "--recipe robust --out pretrained.pt")
    return finder


def read_digits(net: model.Network, rgba: np.ndarray,
                finder: model.Network | None = None) -> list[Reading]:
    """The digits in a picture (H, W), (H, W, 3) or (H, W, 4) uint8, row by row from left to right,
    as `net` reads those that `finder` finds (None: `net` itself if it knows what is no digit, else
    pretrained.pt). Raises FormatError where nothing is visible, UsageError for other arrays."""
    rows, = read_pictures(net, finder or finder_for(net), [ink.composite(as_rgba(rgba))])
    return [reading for row in rows for reading in row]


def mnist_style(rgba: np.ndarray, finder: model.Network | None = None) -> np.ndarray:
    """The one digit in any picture, (H, W), (H, W, 3) or (H, W, 4) uint8, as MNIST would show it:
    (28, 28) uint8, light ink on black. Raises FormatError where there is none, UsageError for other
    arrays."""
    rgb = ink.composite(as_rgba(rgba))
    (_, digits), = find_candidates([rgb], finder or own_finder(), single=True)
    if not digits:
        raise FormatError(NO_DIGIT)
    return digits[0].seen


# --- The page to draw on --------------------------------------------------------------------------

def page_reader(net: model.Network, finder: model.Network, name: str) -> canvas.Reader:
    """What support/canvas.py needs of the networks; `name` is the checkpoint's."""
    def read(rgb: np.ndarray) -> tuple[Answer, list[Candidate]]:
        if net.content == "plain":
            return Answer("drawing", rows=[read_plain(net, [rgb])]), []
        (candidates, chosen), = find_candidates([rgb], finder)
        rows, = read_chosen(net, finder, [chosen])
        return Answer("drawing", error="" if rows else NO_DIGIT, rows=rows), candidates

    def inside(seen: np.ndarray, number: int) -> str:
        image = on_device_of(net, [seen])
        chances = predict_all(net, image)[0].exp()
        best = int(chances.argmax())
        stages = report.stages(net, standardise(image, net.mean, net.std))
        return report.activations(image[0], stages,
                                  Prediction(number, best, best, chances[best].item()),
                                  [*net.class_names, canvas.OTHER])

    return canvas.Reader(name, net.class_names, read, inside)


# --- At the command line --------------------------------------------------------------------------

def main(arguments: list[str]) -> int:
    parser = Parser("Read the handwritten digits in any picture.")
    add_reading_arguments(parser, model.MODELS)
    options = parser.parse_args(arguments)
    if bool(options.images) == options.draw:
        parser.error("give pictures to read, or --draw")
    require(options.top >= 1, "--top", "at least 1", options.top)
    index = index_list(options.index)
    device = pick_device(options.device)
    set_threads()
    checkpoint = options.checkpoint or model.find_checkpoint()
    for flag, out in (("--save-seen", options.save_seen), ("--save-steps", options.save_steps)):
        check_output(flag, out, [*options.images, checkpoint])
    net = model.load(checkpoint, device, options.model)
    finder = finder_for(net).to(device)
    if options.save_steps and net.content == "plain":
        raise UsageError(f"--save-steps: {checkpoint} reads pictures as they are, in one step; see "
                         "--save-seen")
    say(f"checkpoint {checkpoint}", sys.stderr)
    if options.draw:
        canvas.serve(page_reader(net, finder, Path(checkpoint).name), options.host, options.port,
                     not options.no_browser)
        return 0
    return read_all(net, finder, list_pictures(options.images, index, may_be_idx, read_idx),
                    options)


def read_all(net: model.Network, finder: model.Network, listed: list[tuple], options) -> int:
    """Read the pictures that `list_pictures` found, say each answer, and write what is to be shown.
    Returns the exit status: 1 if a picture could not be read."""
    first, seen = None, []
    failed = False
    width = name_width(listed)
    for batch in batches(answers(listed)):
        readable = [answer for answer in batch if not answer.error]
        if options.save_steps and readable and first is None:
            first = readable[0].rgb
        rgbs = [answer.rgb for answer in readable]
        for answer, rows in zip(readable, read_pictures(net, finder, rgbs, options.single)):
            answer.rows = rows
            answer.error = "" if rows else NO_DIGIT
        for answer in batch:
            say(answer.json() if options.json else answer.line(width, options.top))
            failed = failed or bool(answer.error)
            seen += [reading.seen for reading in answer.digits]
            if options.show:
                show(answer, finder.other, sys.stderr if options.json else sys.stdout)
    if first is not None:
        (candidates, chosen), = find_candidates([first], finder, options.single)
        write_png(options.save_steps, steps(first, candidates, chosen))
    if options.save_seen:
        write_png(options.save_seen, contact_sheet(seen))
    return int(failed)


if __name__ == "__main__":
    run_script(main)
