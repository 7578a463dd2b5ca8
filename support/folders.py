"""Folders of pictures as a data set, and what is said of a folder that holds none.

    root/train/CLASS/...    to learn from; the folders of a class may have folders in them
    root/val/CLASS/...      for validation, where it is there
    root/test/CLASS/...     for the figures at the end, where it is there

Pictures of any size become 28 × 28 pixels. Hidden files and folders are left out: macOS and
notebooks leave them about.
"""
import difflib
import os
import re
import sys
from pathlib import Path

import numpy as np

from support.command_line import DATA, Progress, is_default_data, printable, say
from support.errors import FormatError, in_file, shape_text
from support.files import read_file, write_whole
from support.ink import composite
from support.mapped import is_mapped
from support.mnist_style import SIDE
from support.pictures import is_picture, pictures_in, read_picture, small_grey

PARTS = ("train", "val", "test")
Part = tuple[np.ndarray, np.ndarray]  # images (N, 28, 28) uint8, labels (N,) int64


# --- Which folders --------------------------------------------------------------------------------

def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir()
                  if path.is_dir() and not path.name.startswith("."))


def has_folders(root: Path) -> bool:
    """Whether root/train holds folders, as picture data sets do."""
    return (root / "train").is_dir() and bool(class_folders(root / "train"))


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in a folder and in the folders in it, sorted. Raises OSError for one that
    cannot be read."""
    def complain(error: OSError):  # os.walk would leave it out
        raise error

    found = []
    seen = set()  # a link may lead back to where it lies
    for place, folders, names in os.walk(folder, onerror=complain, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if is_picture(name)]
    return sorted(found)


def class_names(names: set[str]) -> dict[str, int]:
    """The label of each class folder. Names that are numbers from 0 are the labels themselves;
    others are numbered in order. Raises FormatError for two names of one number, 1 and 01."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return {name: label for label, name in enumerate(sorted(names))}
    numbers = {}
    for name in sorted(names):
        if int(name) in numbers:
            raise FormatError(f"expected one folder for each class, found {numbers[int(name)]} and "
                              f"{name}; rename one of them, or put its pictures into the other")
        numbers[int(name)] = name
    digits = all(len(name) == 1 for name in names)
    if digits or (0 in numbers and max(numbers) < 1000):
        return {name: number for number, name in sorted(numbers.items())}
    return {name: label for label, (_, name) in enumerate(sorted(numbers.items()))}


def folder_of(label: str, number: int) -> str:
    """The folder of a class in which drawings are kept: its label or, where that, which comes from
    a checkpoint, is no plain name, a name with its number."""
    if re.fullmatch(r"\w[\w -]{0,39}", label):
        return label
    return f"class-{number}"


def all_names(labels: dict[str, int]) -> list[str]:
    """The names of the classes in order. Folders named by single digits are ten classes, whichever
    of them are there."""
    count = max(labels.values()) + 1
    if all(name == str(label) for name, label in labels.items()) and count <= 10:
        count = 10
    names = [str(label) for label in range(count)]
    for name, label in labels.items():
        names[label] = printable(name)
    return names


# --- Reading them ---------------------------------------------------------------------------------

def read_folders(root: Path) -> tuple[Part, Part, list[str], int]:
    """Read root/train, root/val and root/test. Returns the training part, the test part (empty, if
    there is none), the names of the classes, and how many of the training images, the last ones,
    are those of root/val. Says on stderr what it found. Raises FormatError."""
    check_names_of_parts(root)
    files = {part: pictures_of_classes(root / part) for part in PARTS if (root / part).is_dir()}
    if not any(files["train"].values()):
        raise FormatError(f"{root / 'train'}: expected pictures in its folders, found none")
    names = {name for of_part in files.values() for name, paths in of_part.items() if paths}
    with in_file(root):
        labels = class_names(names)
    sizes = set()
    parts = {part: read_part(part, of_part, labels, sizes) for part, of_part in files.items()
             if any(of_part.values())}
    nothing = np.zeros((0, SIDE, SIDE), np.uint8), np.zeros(0, np.int64)
    validation = parts.get("val", nothing)
    training = tuple(np.concatenate(pair) for pair in zip(parts["train"], validation))
    describe(root, parts, sizes, files, labels)
    return training, parts.get("test", nothing), all_names(labels), len(validation[1])


def pictures_of_classes(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class folder in a folder."""
    return {path.name: pictures_below(path) for path in class_folders(folder)}


def read_part(part: str, files: dict[str, list[Path]], labels: dict[str, int],
              sizes: set[tuple[int, int]]) -> Part:
    """The images and labels of one part; the sizes of its pictures are added to `sizes`."""
    examples = [(path, label) for name, label in labels.items() for path in files.get(name, [])]
    images = np.zeros((len(examples), SIDE, SIDE), np.uint8)
    with Progress(len(examples), f"reading {part}") as bar:
        for i, (path, _) in enumerate(examples):
            data = read_file(path)
            with in_file(path):
                rgb = composite(read_picture(data))
            sizes.add(rgb.shape[:2])
            images[i] = small_grey(rgb)
            if bar.due():
                bar.show(i + 1)
    return images, np.array([label for _, label in examples], np.int64)


def describe(root: Path, parts: dict[str, Part], sizes: set[tuple[int, int]],
             files: dict[str, dict[str, list[Path]]], labels: dict[str, int]) -> None:
    """Say on stderr what was made of the pictures, and what was left out."""
    if sizes != {(SIDE, SIDE)}:
        smallest, largest = (pick(sizes, key=np.prod) for pick in (min, max))
        found = f"of {shape_text(smallest[::-1])}"
        if len(sizes) > 1:
            found = f"from {shape_text(smallest[::-1])} to {shape_text(largest[::-1])}"
        say(f"{root}: pictures {found} pixels, resized to {SIDE} × {SIDE}", sys.stderr)
    if "val" in parts:
        say(f"{root}: the {len(parts['val'][1]):,} pictures in val are used for validation, "
            "in place of a fraction of the others", sys.stderr)
    if "test" not in parts:
        say(f"{root}: there are no pictures in test, so there will be no test accuracy", sys.stderr)
    left_out = [f"{part}/{name} (no pictures)" for part, of_part in files.items()
                for name in of_part if name not in labels]
    for part in parts:
        loose = pictures_in(root / part)
        if loose:
            left_out.append(f"loose pictures ({len(loose):,}) in {part}")
    left_out += [f"{path.name}/" for path in class_folders(root) if path.name not in PARTS]
    if left_out:
        say(f"{root}: not used: {some(left_out)}", sys.stderr)


def some(names: list[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    text = ", ".join(printable(name) for name in names[:most])
    if len(names) > most:
        text += f" and {len(names) - most:,} more"
    return text


def light_borders(images: np.ndarray) -> int:
    """How many of (N, H, W) uint8 images have a border that is light: those are dark on light."""
    count = 0
    for first in range(0, len(images), 10_000):  # there may be more than memory takes at once
        part = images[first : first + 10_000]
        border = np.concatenate([part[:, 0], part[:, -1], part[:, :, 0], part[:, :, -1]], 1)
        count += int((border.mean(1) > 127).sum())
    return count


def is_dark_on_light(root: Path, images: np.ndarray) -> bool:
    """Whether most of the training images (N, H, W) are dark on light, which is then said."""
    count = light_borders(images)
    if 2 * count <= len(images):
        return False
    say(f"{root}: dark on light ({count:,} of {len(images):,} training images have light borders); "
        "all are turned round to light on dark", sys.stderr)
    return True


def turn_round(root: Path, images: np.ndarray) -> None:
    """Make light of dark, in place. Raises FormatError for images that are not in memory."""
    if is_mapped(images):
        raise FormatError(f"{root}: expected images that are light on dark, for they are too large "
                          "for memory, found dark on light; write 255 minus each")
    np.subtract(255, images, out=images)


# --- The names of the classes beside IDX files ----------------------------------------------------

NAMES = "classes.txt"  # a line for each class, from 0


def write_names(root: Path, names: list[str]) -> Path:
    path = root / NAMES
    write_whole(path, lambda file: file.write(("\n".join(names) + "\n").encode()))
    return path


def read_names(root: Path, classes: int) -> list[str] | None:
    """The names of a data set's classes, if a file says them. Raises FormatError."""
    path = root / NAMES
    if not path.is_file():
        return None
    try:
        names = read_file(path).decode().splitlines()
    except UnicodeDecodeError:
        raise FormatError(f"{path}: expected text in UTF-8, found other bytes") from None
    if not classes <= len(names) <= 1000 or len(set(names)) < len(names):
        raise FormatError(f"{path}: expected a name for each of {classes} classes, each another "
                          f"one and on a line of its own, found {len(names):,} lines, "
                          f"{len(set(names)):,} of them different")
    for name in names:
        if not name.strip() or len(name) > 255 or not name.isprintable():
            raise FormatError(f"{path}: expected names of 1 to 255 printable characters, "
                              f"found {name!r:.60}")
    return names


# --- A folder that is no data set -----------------------------------------------------------------

def near(name: str, names) -> str | None:
    """The one of `names` that somebody may have meant who wrote `name`."""
    folded = {other.lower(): other for other in names if other != name}
    for close in difflib.get_close_matches(name.lower(), folded, 1, 0.7):
        return folded[close]
    return None


def misspelt(root: Path) -> tuple[str, str] | None:
    """A folder of folders in `root` whose name is nearly that of a part which is not there, and the
    right name: (Train, train), (validation, val)."""
    missing = [part for part in PARTS if not (root / part).is_dir()]
    for path in class_folders(root):
        longer = [part for part in missing if path.name.lower().startswith(part)]
        right = longer[0] if longer else near(path.name, missing)
        if right and path.name not in PARTS and class_folders(path):
            return path.name, right
    return None


def check_names_of_parts(root: Path) -> None:
    """Raise FormatError where Test or vall lies beside train: it would be left out."""
    wrong = misspelt(root)
    if wrong:
        raise FormatError(f"{root}: expected the folders {', '.join(PARTS)}, found {wrong[0]}; "
                          f"did you mean {wrong[1]}? Rename it")


def is_free(root: Path) -> bool:
    """Whether a folder is not there yet, or has nothing in it but hidden files."""
    return not root.exists() or all(path.name.startswith(".") for path in root.iterdir())


def may_take_mnist(root: Path) -> bool:
    """Whether MNIST may be downloaded into a folder: one that is empty or new, or the default one,
    if nothing in it looks like pictures that somebody meant to train on."""
    if is_free(root):
        return True
    folders = class_folders(root)
    pictures = pictures_in(root) or misspelt(root) or any(
        path.name in PARTS or path.name.isdigit() or pictures_in(path) for path in folders)
    return is_default_data(root) and not pictures


def what_is_there(root: Path) -> str:
    """What lies in a folder that is no data set, or in its place, and what to do about it."""
    if not root.exists():
        beside = [path.name for path in class_folders(root.parent)] if root.parent.is_dir() else []
        right = near(root.name, {*beside, DATA})
        if right:
            return (f"no such folder; did you mean {root.with_name(right)}? (--download fetches "
                    "MNIST into a new folder)")
        return "no such folder; --download fetches MNIST into a new one"
    if is_free(root):
        return "an empty folder; --download fetches MNIST into it"
    wrong = misspelt(root)
    if wrong:
        return f"the folder {wrong[0]}; did you mean {wrong[1]}? Rename it"
    if root.name in PARTS and class_folders(root):
        return (f"the folders {some(names_of(class_folders(root)))}; give the folder above, "
                f"{root.parent}")
    for folder in (root, root / "train"):
        loose = pictures_in(folder) if folder.is_dir() else []
        if loose:
            return (f"loose pictures ({len(loose):,}) in {folder}; put those of each class into "
                    "train/CLASS")
    with_pictures = [path for path in class_folders(root) if pictures_in(path)]
    if with_pictures:
        return (f"the folders {some(names_of(with_pictures))} with pictures; put them into "
                f"{root / 'train'}")
    return f"{some(sorted(names_of(root.iterdir())))}; give another folder"


def names_of(paths) -> list[str]:
    return [path.name for path in paths]
