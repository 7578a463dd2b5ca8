"""What the pictures of a data set are, which decides how `infer.py` prepares the one that it is to
read: *digits*, handwritten and in MNIST's style, for which it looks for ink in any picture; or
*plain*, pictures as they are, each made grey and 28 × 28 pixels.

And whether it fits a network, what numbers that has for its classes, and what looks wrong with the
labels.
"""
import sys

import numpy as np

from support.command_line import choose, say
from support.errors import UsageError
from support.folders import folder_of, some
from support.mnist_style import BOX, SIDE

import torch

CONTENTS = ("digits", "plain")

# --- Digits or plain ------------------------------------------------------------------------------

# Of MNIST's images 99.9% are in its style as it is measured here; of Fashion-MNIST 0.3%, of UCI's
# 8×8 digits none, of digits drawn anywhere on a page 3%, and of shapes drawn in the middle of one,
# 0.6 as high, 42%. Where it is in doubt, plain is safe: what is trained on is what will be read.
MOST = 0.9
EXAMPLES = 2000  # images that are looked at, from all over the training set
INK = 127  # of 255: brighter pixels are ink
BLACK, BLACK_SHARE = 64, 0.6  # darker pixels are black, and most of an image is
OFF_CENTRE = 1  # pixels from the middle to the centre of mass, at the most; MNIST rounds to whole


def mnist_share(images: np.ndarray) -> float:
    """The share of (N, 28, 28) uint8 images that are in MNIST's style: light strokes on black, in a
    box of about 20 pixels, the centre of mass in the middle."""
    images = images.astype(np.float32)
    mostly_black = (images < BLACK).mean((1, 2)) > BLACK_SHARE
    fits = np.ones(len(images), bool)
    longest = np.zeros(len(images))
    total = images.sum((1, 2)).clip(1)
    for axis in (1, 2):
        ink = (images > INK).any(axis)  # (N, 28): which rows or columns have ink
        first, last = ink.argmax(1), SIDE - 1 - ink[:, ::-1].argmax(1)
        longest = np.maximum(longest, np.where(ink.any(1), last - first + 1, 0))
        centre = images.sum(axis) @ (np.arange(SIDE) + 0.5) / total
        fits &= abs(centre - SIDE / 2) <= OFF_CENTRE
    boxed = (longest > BOX - 4) & (longest <= BOX)  # faint ends are no ink
    return float((mostly_black & fits & boxed).mean())


def content_of(digits) -> tuple[str, str]:
    """What a data set's pictures are, one of CONTENTS, and why. `digits` is an idx_data.Digits, of
    which `content` may have decided it."""
    if digits.content != "auto":
        return digits.content, "given by --content or --from"
    numbers = [str(label) for label in range(10)]
    if digits.labels and digits.labels != numbers[: len(digits.labels)]:
        return "plain", f"the classes are {some(digits.labels)}, not the digits"
    if digits.classes > 10:
        return "plain", f"there are {digits.classes} classes, not the digits"
    if tuple(digits.train_images.shape[1:]) != (SIDE, SIDE):
        return "plain", f"the images have not {SIDE} × {SIDE} pixels"
    step = max(1, len(digits.train_images) // EXAMPLES)
    share = mnist_share(digits.train_images[::step].numpy())
    content = "digits" if share > MOST else "plain"
    return content, f"labels 0 to {digits.classes - 1}, {share:.0%} in MNIST's style"


READS = {"digits": "infer.py looks for digits", "plain": "infer.py takes pictures as they are"}


def settle_content(digits, content: str, log) -> None:
    """Decide what the pictures of an idx_data.Digits are, where neither `content` nor `take_after`
    says it, and print it; and warn of labels that look wrong. Raises UsageError for another
    word."""
    choose(content, ("auto", *CONTENTS), "--content")
    if content != "auto":
        digits.content = content
    digits.content, why = content_of(digits)
    say(f"content {digits.content}: {why}; {READS[digits.content]}", log)
    doubtful = doubts(digits)
    if doubtful:
        say(f"warning: {doubtful}", sys.stderr)


# --- For a network --------------------------------------------------------------------------------

def check_fit(digits, folder: str, classes: int = 1000) -> None:
    """Raise UsageError if the images of an idx_data.Digits, read from `folder`, have not the size
    that the networks take, or are of more than `classes` classes."""
    size = tuple(digits.train_images.shape[1:])
    if size != (SIDE, SIDE):
        raise UsageError(f"the networks take images of {SIDE} × {SIDE} pixels, those in {folder} "
                         f"have {size[0]} × {size[1]}; resize them first")
    if digits.classes > classes:
        raise UsageError(f"the model knows {classes} classes, {folder} has {digits.classes}; "
                         "train a model on it")


def renumber(digits, names: list[str]) -> list[str]:
    """Give the classes of an idx_data.Digits that has names the numbers that they have in `names`,
    those of a model's classes: the data may be of some of them only. Returns the names of images
    that are not among them; then nothing is changed."""
    if digits.labels is None:
        return []
    numbers = {folder_of(name, number): number for number, name in enumerate(names)}
    numbers |= {name: number for number, name in enumerate(names)}
    present = torch.cat([digits.train_labels, digits.test_labels]).unique().tolist()
    unknown = [digits.labels[label] for label in present if digits.labels[label] not in numbers]
    if not unknown:
        number_of = torch.tensor([numbers.get(name, -1) for name in digits.labels])
        digits.train_labels = number_of[digits.train_labels]
        digits.test_labels = number_of[digits.test_labels]
        digits.labels = names
    return unknown


def take_after(digits, net, folder: str) -> None:
    """Prepare an idx_data.Digits, read from `folder`, for a network that is to learn more of what
    it knows: its classes, and what its pictures are. Raises UsageError for data with other
    classes."""
    unknown = renumber(digits, net.class_names)
    if unknown:
        raise UsageError(f"{folder} has the classes {some(unknown)}, the model knows "
                         f"{some(net.class_names)}: name them as it does (the folders, or in "
                         "classes.txt), or train without --from")
    digits.content = net.content
    if digits.content == "plain" and digits.inverted != net.inverted:
        say(f"{folder}: these pictures and those that the model knows are not both dark on light; "
            "from now on, infer.py takes all pictures to be dark on light", sys.stderr)


def prepare(digits, folder: str, base, content: str, log) -> None:
    """Make an idx_data.Digits, read from `folder`, ready to be learned from, by a fresh network or
    by `base`, and print what its pictures are. Raises UsageError for what does not fit."""
    if base is None:
        check_fit(digits, folder)
    else:
        check_fit(digits, folder, base.classes)
        take_after(digits, base, folder)
    settle_content(digits, content, log)


# --- Labels that look wrong -----------------------------------------------------------------------

def doubts(digits) -> str:
    """What looks wrong with the labels of an idx_data.Digits, in one line; "", if nothing does."""
    def names(labels: np.ndarray) -> str:
        return some([digits.class_names[label] for label in labels])

    own = len(digits.train_labels) - digits.val_count
    learned = np.unique(digits.train_labels[:own])
    test = digits.test_labels.numpy()
    found = []
    for part, labels in (("validation", digits.train_labels[own:].numpy()), ("test", test)):
        unknown = np.setdiff1d(labels, learned)
        if len(unknown):
            found.append(f"there are {part} images of {names(unknown)}, but none to learn from")
    untested = np.setdiff1d(learned, test)
    if len(test) and len(untested):
        found.append(f"there are training images of {names(untested)}, but none for testing")
    lowest = np.concatenate([learned, test]).min()
    if digits.content == "plain" and not digits.labels and lowest == 1:
        found.append(f"the labels go from 1 to {digits.classes - 1}, but are numbered from 0: are "
                     "they shifted by one?")
    return "; ".join(found)
