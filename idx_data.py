"""Bytes on disk become arrays and tensors: the IDX format, MNIST's four files, the split,
standardising.

    python idx_data.py                     fetch MNIST into data/, check it, print its facts
    python idx_data.py --data DIR          the same for any data set in the same four files
    python idx_data.py FILE...             describe any IDX files
    python idx_data.py --convert DIR OUT   write a folder of pictures as four IDX files
"""
import gzip
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from support.command_line import (DATA, Parser, add_data_arguments, may_download, run_script, say,
                                  shortened)
from support.download import download_missing
from support.errors import FormatError, UsageError, in_file, shape_text
from support.files import GZIP_MAGIC, find_files, open_file, sha256, unpacked, write_whole
from support.folders import (NAMES, has_folders, is_dark_on_light, read_folders, read_names,
                             turn_round, write_names)
from support.idx_checks import check_header, check_pair, check_parts, read_elements
from support.mapped import as_tensor, is_mapped

import numpy as np
import torch  # after support/__init__.py, which says why


# --- The IDX format -------------------------------------------------------------------------------
# How the file of MNIST's training images begins (Y. LeCun, "The MNIST database", section "The IDX
# file format"); all numbers are big-endian, their highest byte first:
#
#     00 00         two zero bytes
#     08            the type of an element: an unsigned byte
#     03            the number of dimensions
#     00 00 ea 60   the first one's size: 60,000 images
#     00 00 00 1c   of 28 rows
#     00 00 00 1c   of 28 columns
#     00 00 00 ...  the elements, the last dimension running fastest: image by image, row by row

def read_header(file) -> tuple[int, int, tuple[int, ...]]:
    """The zeros, the element type's code, the shape: (0, 8, (60000, 28, 28)) for the file above."""
    zeros, code, dimensions = struct.unpack(">HBB", file.read(4))
    shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    return zeros, code, shape


ELEMENT_TYPES = {0x08: np.dtype("u1"), 0x09: np.dtype("i1"), 0x0B: np.dtype(">i2"),
                 0x0C: np.dtype(">i4"), 0x0D: np.dtype(">f4"), 0x0E: np.dtype(">f8")}


def read_idx(path) -> np.ndarray:
    """Read an IDX file, raw or gzip (told by its first bytes, not its name).

    Returns an array of the file's shape and element type, in native byte order, writable; but a
    raw file of bytes that is larger than a quarter of the free memory stays on the disk, mapped and
    read-only. Raises FormatError when the bytes are not those of an IDX file, OSError when they
    can't be read.
    """
    with open_file(path) as raw, in_file(path, "; get the file again"), unpacked(raw) as file:
        check_header(file, ELEMENT_TYPES)
        _, code, shape = read_header(file)
        array = read_elements(file, ELEMENT_TYPES[code], shape)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def may_be_idx(head: bytes) -> bool:
    """Whether a file that begins like this may be IDX, raw or gzip. A third zero byte is no element
    type, but HEIC pictures have it."""
    is_heic = head.startswith(b"\0\0\0")
    return head.startswith((b"\0\0", GZIP_MAGIC)) and not is_heic


def idx_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The header of the IDX file that holds an array of this element type and shape.
    Raises ValueError for an element type that IDX does not have (bool, int64, ...)."""
    codes = [code for code, known in ELEMENT_TYPES.items() if known == dtype.newbyteorder(">")]
    if not codes:
        raise ValueError(f"IDX has no element type for {dtype}: convert it to uint8, int8, "
                         "int16, int32, float32 or float64")
    return struct.pack(f">HBB{len(shape)}I", 0, codes[0], len(shape), *shape)


def idx_bytes(array: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The header and the big-endian elements of the IDX file that holds `array`.
    Raises ValueError as idx_header does."""
    array = np.asarray(array)
    header = idx_header(array.dtype, array.shape)
    return header, array.astype(array.dtype.newbyteorder(">"), order="C", copy=False)


def write_idx(path, array: np.ndarray) -> None:
    """Write an array as an IDX file, packed by gzip if the name ends in .gz; whole or not at all.
    Raises ValueError as idx_bytes does."""
    header, elements = idx_bytes(array)
    data = header + elements.tobytes()
    if str(path).endswith(".gz"):
        data = gzip.compress(data, mtime=0)  # no time in it: the same array gives the same file
    write_whole(path, lambda file: file.write(data))


# --- The data set as tensors ----------------------------------------------------------------------

FILES = {  # MNIST's, and the SHA-256 of each as it is unpacked
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass
class Digits:
    """A data set: images (N, H, W) uint8, labels (N,) int64 from 0 to classes - 1."""
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor  # there may be none
    test_labels: torch.Tensor
    labels: list[str] | None = None  # the names of the classes; None: their numbers
    inverted: bool = False  # whether they were dark on light, and all are turned round
    val_count: int = 0  # of the training images the last, which are for validation; 0: see `split`
    content: str = "auto"  # digits, plain, or auto: what support/content.py finds
    mapped: bool = False  # whether the training images stay in their file, and are read-only

    @property
    def classes(self) -> int:
        if self.labels:
            return len(self.labels)
        return int(torch.cat([self.train_labels, self.test_labels]).max()) + 1

    @property
    def class_names(self) -> list[str]:
        return self.labels or [str(label) for label in range(self.classes)]

    def split(self, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The indices of the training images to train on, and to validate on: those that the data
        set itself holds out or, by `split`, a fraction."""
        if self.val_count:
            return torch.arange(len(self.train_labels)).split(
                [len(self.train_labels) - self.val_count, self.val_count])
        return split(len(self.train_labels), fraction, seed)

    def arrays(self) -> dict[str, np.ndarray]:
        """What the four IDX files of this data set hold."""
        label_type = np.uint8 if self.classes <= 256 else np.int32
        train_images, test_images = self.train_images.numpy(), self.test_images.numpy()
        if self.inverted:  # as they were
            train_images, test_images = 255 - train_images, 255 - test_images
        arrays = [train_images, self.train_labels.numpy().astype(label_type),
                  test_images, self.test_labels.numpy().astype(label_type)]
        return dict(zip(FILES, arrays))

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of the four IDX files, unpacked, whatever files the data came from."""
        return {name: sha256(*idx_bytes(array)) for name, array in self.arrays().items()}

    def is_mnist(self) -> bool:
        """Whether this is MNIST itself, to the byte."""
        return self.hashes() == FILES


def load_digits(root=DATA, download: bool | None = None, mirror: str | None = None) -> Digits:
    """Load a data set from `root`: the four IDX files in any of the layouts of `find_files`, or
    picture folders root/train/CLASS/*.png (`support/folders.py`). With none there, MNIST is
    downloaded: if `download` is None, into the default folder, or where a mirror is given; if it is
    True, into any folder that is empty or new. Raises FormatError for files that don't fit
    together, OSError where the data can't be had."""
    if not str(root):
        raise UsageError("the name of the data set's folder is empty")
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise FileNotFoundError(f"{root}: expected the folder of a data set, found a file")
    found = find_files(root, FILES)
    names, val_count = None, 0
    if not found and has_folders(root):
        training, test, names, val_count = read_folders(root)
    else:
        if len(found) < len(FILES):
            found.update(download_missing(root, FILES, found, hash_of, download, mirror))
        training = read_pair(found, "train")
        test = read_pair(found, "t10k")
    check_parts(root, training[0], test[0])
    inverted = is_dark_on_light(root, training[0][: len(training[0]) - val_count])
    if inverted:
        for images, _ in (training, test):
            turn_round(root, images)
    train_images, train_labels, test_images, test_labels = map(as_tensor, training + test)
    digits = Digits(train_images, train_labels, test_images, test_labels, names, inverted,
                    val_count, mapped=is_mapped(training[0]))
    if names is None:
        digits.labels = read_names(root, digits.classes)
    if not 2 <= digits.classes <= 1000:
        raise FormatError(f"{root}: expected 2 to 1000 classes, "
                          f"found labels up to {digits.classes - 1}")
    return digits


def hash_of(path) -> str:
    """The SHA-256 of an IDX file's bytes, unpacked."""
    return sha256(*idx_bytes(read_idx(path)))


def read_pair(found: dict[str, Path], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) uint8 and labels (N,) int64 of one part, "train" or "t10k"."""
    images_path = found[f"{part}-images-idx3-ubyte"]
    labels_path = found[f"{part}-labels-idx1-ubyte"]
    images = read_idx(images_path)
    labels = read_idx(labels_path)
    check_pair(images_path, images, labels_path, labels)
    return images, labels.astype(np.int64)


def split(count: int, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Shuffle the indices 0 to count - 1 and split them: (training, validation), int64.
    The validation part chooses the epoch and every setting; the test set chooses nothing."""
    held_out = round(count * fraction)
    if not 0 < held_out < count:
        raise UsageError(f"--val-fraction {fraction:g} of {count:,} training images leaves "
                         f"{held_out:,} for validation: either side needs at least one image")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:], order[:held_out]


def mean_std(images: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the pixels of (N, H, W) uint8, black 0 and white 1.
    Exact and small: it counts each of the 256 grey levels instead of turning 47 MB into floats."""
    counts = torch.zeros(256, dtype=torch.float64)
    for part in images.split(1000):
        counts += torch.bincount(part.flatten(), minlength=256)
    grey = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts @ grey / counts.sum()).item()
    std = (counts @ (grey - mean) ** 2 / counts.sum()).sqrt().item()
    if std == 0:
        raise FormatError("expected training images that differ, found the same grey in all their "
                          "pixels; give other data")
    return mean, std


def standardise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """(B, H, W) of 0 to 255, uint8 or float32, becomes (B, 1, H, W) float32 with mean 0 and
    standard deviation 1. Training, evaluation and inference all call this."""
    return images.unsqueeze(1).sub(255 * mean).mul_(1 / (255 * std))  # a new tensor: sub, not sub_


# --- At the command line --------------------------------------------------------------------------

def facts(digits: Digits) -> str:
    """The counts, the size, the mean and standard deviation, and the count of each class."""
    mean, std = mean_std(digits.train_images)
    train_counts = torch.bincount(digits.train_labels, minlength=digits.classes).tolist()
    test_counts = torch.bincount(digits.test_labels, minlength=digits.classes).tolist()
    held_out = ""
    if digits.val_count:
        held_out = f" (the last {digits.val_count:,} for validation)"
    lines = [f"images    {sum(train_counts):,} for training{held_out}, {sum(test_counts):,} for "
             f"testing, {shape_text(digits.train_images.shape[1:])} pixels",
             f"pixels    mean {mean:.4f}, standard deviation {std:.4f} "
             "(training images, black 0, white 1)",
             f"classes   {digits.classes}"]
    names = [shortened(name) for name in digits.class_names]
    width = max(8, *map(len, names))
    lines.append(f"{'class':>{width}}  training    test")
    for name, train_count, test_count in zip(names, train_counts, test_counts):
        lines.append(f"{name:>{width}}{train_count:>10,}{test_count:>8,}")
    return "\n".join(lines)


def describe(path) -> str:
    """What an IDX file holds, in one line."""
    array = read_idx(path)
    text = f"{path}: {shape_text(array.shape)} of {array.dtype}, {array.nbytes:,} bytes"
    if array.size:
        text += f", from {array.min()} to {array.max()}"
    return text


def convert(source, target: Path) -> None:
    """Write a data set, picture folders most often, as four IDX files in the folder `target`."""
    if find_files(target, FILES) or (target / NAMES).exists():
        raise UsageError(f"--convert: {target} holds a data set already; name another folder")
    digits = load_digits(source, download=False)
    for name, array in digits.arrays().items():
        write_idx(target / name, array)
        say(f"wrote {target / name}")
    if digits.labels:
        say(f"wrote {write_names(target, digits.labels)}")
    if digits.val_count:
        say(f"the {digits.val_count:,} pictures for validation are now the last of the training "
            "images: IDX files have no place for them", sys.stderr)


def main(arguments: list[str]) -> int:
    parser = Parser("Fetch MNIST, check it and print its facts; or describe IDX files.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="IDX files to describe")
    add_data_arguments(parser)
    parser.add_argument("--convert", nargs=2, metavar=("DIR", "OUT"), help="read the pictures in "
                        "DIR/train/CLASS and DIR/test/CLASS, write IDX files to OUT")
    options = parser.parse_args(arguments)
    if options.convert and options.files:
        parser.error("give FILEs or --convert, not both")
    if options.convert:
        source, target = options.convert
        convert(source, Path(target))
    elif options.files:
        for path in options.files:
            say(describe(path))
    else:
        digits = load_digits(options.data, may_download(options), options.mirror)
        itself = ", MNIST itself, to the byte" if digits.is_mnist() else ""
        say(f"data set  {options.data}{itself}")
        say(facts(digits))
    return 0


if __name__ == "__main__":
    run_script(main)
