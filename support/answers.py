"""What is said about each picture: for people, and as JSON; and pictures taken together, to be
judged at once."""
import json
import time
from dataclasses import dataclass, field

import numpy as np

from support import ink
from support.command_line import printable
from support.errors import FormatError, UsageError
from support.pictures import pictures_at

# Confidence under which an answer is called unsure: of 1,631 pictures of digits and numbers, 72% of
# such answers were right, and 98.7% of the others.
UNSURE = 0.8
BATCH = 200  # pictures that are judged, and answered, at once
PIXELS = 1 << 24  # of them that are kept in memory for it


@dataclass
class Reading:
    """One digit that was read, or one picture as it is. probabilities: of the network's classes,
    whose names are `names`; the best is `digit`; other: that it is none of them (all sum to 1);
    box: top, left, bottom, right in pixels."""
    digit: int
    confidence: float
    probabilities: list[float]
    other: float
    box: list[float]
    seen: np.ndarray  # (28, 28) uint8
    names: list[str]

    @property
    def label(self) -> str:
        return self.names[self.digit]

    def best(self, count: int) -> list[int]:
        """The most probable classes, the best first."""
        classes = range(len(self.probabilities))
        return sorted(classes, key=lambda k: -self.probabilities[k])[:count]


@dataclass
class Answer:
    """What there is to say about one picture."""
    image: str  # the path as it was given
    index: int | None = None  # in an IDX file
    error: str = ""  # why nothing else is known
    rgb: np.ndarray | None = None  # (H, W, 3), if there is no error
    rows: list[list[Reading]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return printable(self.image if self.index is None else f"{self.image}[{self.index}]")

    @property
    def digits(self) -> list[Reading]:
        return [reading for row in self.rows for reading in row]

    @property
    def text(self) -> str:
        """The digits as a number, row by row; with names, words."""
        rows = [[reading.label for reading in row] for row in self.rows]
        between = "" if all(len(label) == 1 for row in rows for label in row) else " "
        return "\n".join(between.join(row) for row in rows)

    @property
    def confidence(self) -> float:
        return min(reading.confidence for reading in self.digits)

    def line(self, width: int, top: int) -> str:
        """The answer for people: the number and its confidence; for one digit, the next best."""
        if self.error:
            return f"{self.name:<{width}}   error: {self.error}"
        text = self.text.replace("\n", " / ")
        if len(self.digits) == 1:  # names of several lengths, but percentages beneath each other
            text = text.ljust(min(40, max(map(len, self.digits[0].names))))
        line = f"{self.name:<{width}}   {text}  {self.confidence:6.1%}"
        if self.confidence < UNSURE:
            line += "  unsure"
        if len(self.digits) == 1:
            digit = self.digits[0]
            best = "   ".join(f"{digit.names[k]} {digit.probabilities[k]:.1%}"
                              for k in digit.best(top))
            line += f"      {best}"
        return line

    def json(self) -> str:
        item = {"image": self.image}
        if self.index is not None:
            item["index"] = self.index
        if self.error:
            return json.dumps({**item, "error": self.error}, allow_nan=False)
        first = self.digits[0]
        item |= {"digit": first.digit, "label": first.label, "confidence": self.confidence,
                 "probabilities": first.probabilities, "other": first.other, "text": self.text,
                 "digits": [{"digit": reading.digit, "label": reading.label,
                             "confidence": reading.confidence,
                             "box": [round(side, 1) for side in reading.box]}
                            for reading in self.digits]}
        if self.confidence < UNSURE:
            item["unsure"] = True
        return json.dumps(item, allow_nan=False)


def index_list(text: str | None) -> list[int] | None:
    """The numbers of --index. Raises UsageError."""
    if text is None:
        return None
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isdecimal() and len(number) < 12 for number in numbers):
        raise UsageError(f"--index {text}: expected numbers from 0 with commas, like 0,7,42")
    return [int(number) for number in numbers]


def list_pictures(paths: list[str], index: list[int] | None, may_be_idx, read_idx) -> list[tuple]:
    """What there is to read at some paths: (path, index in an IDX file or None, a function that
    reads (H, W, 4) uint8, or the error that stands in its place). The last two are idx_data's."""
    listed = []
    for path in paths:
        try:
            listed += pictures_at(path, index, may_be_idx, read_idx)
        except (FormatError, OSError) as error:
            listed.append((path, None, error))
    return listed


def name_width(listed: list[tuple]) -> int:
    """Characters of the longest name of some pictures, 40 at the most: a column for all of them."""
    return min(40, max(len(Answer(path, index).name) for path, index, _ in listed))


def answers(listed: list[tuple]):
    """Yield an Answer for each picture, with its pixels. A bad file does not stop the others."""
    for path, index, read in listed:
        answer = Answer(path, index)
        try:
            if isinstance(read, Exception):
                raise read
            answer.rgb = ink.composite(read())
        except (FormatError, OSError) as error:
            answer.error = reason(error, path)
        yield answer


def reason(error: Exception, path: str) -> str:
    """What an error says, without the path: that stands beside it."""
    text = getattr(error, "strerror", None) or str(error)
    return text.removeprefix(f"{path}: ")


def batches(found):
    """Lists of answers, to be judged at once: BATCH of them or PIXELS, or what a second brings."""
    batch, pixels = [], 0
    started = time.monotonic()
    for answer in found:
        batch.append(answer)
        if answer.rgb is not None:
            pixels += answer.rgb.shape[0] * answer.rgb.shape[1]
        if len(batch) == BATCH or pixels > PIXELS or time.monotonic() - started > 1:
            yield batch
            batch, pixels = [], 0
            started = time.monotonic()
    if batch:
        yield batch
