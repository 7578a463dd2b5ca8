"""Bytes on disk become arrays and tensors: IDX and picture files, MNIST, the split, standardising.

    python idx_data.py                     fetch MNIST into data/, check it, print its facts
    python idx_data.py --data DIR          the same for any data set in the same four files
    python idx_data.py FILE...             describe any IDX files
    python idx_data.py --convert DIR OUT   write a folder of pictures as four IDX files

Read it in this order: the IDX format, MNIST on the disk, the data set as tensors.
"""
import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from support.command_line import Parser, add_data_arguments, run_script, say
from support.download import download
from support.errors import FormatError, UsageError, in_file, shape_text
from support.files import DEFLATE_LIMIT, kind_of, open_file, sha256, write_whole
from support.pictures import class_folders, has_folders, read_folders

import numpy as np
import torch


# --- The IDX format -------------------------------------------------------------------------------
# Two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension
# as a big-endian 32-bit number, then the elements, big-endian, the last dimension running fastest
# (Y. LeCun, "The MNIST database", section "The IDX file format").

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path) -> np.ndarray:
    """Read an IDX file, raw or gzip (told by its first bytes, not its name).

    Returns an array of the file's shape and element type, in native byte order, writable.
    Raises FormatError when the bytes are not those of an IDX file, OSError when they can't be read.
    """
    with open_file(path) as file, in_file(path, "; get the file again"):
        size, packed = os.fstat(file.fileno()).st_size, file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            return _read_idx(gzip.GzipFile(fileobj=file) if packed else file, size, packed)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FormatError(f"expected a whole gzip file, found a broken one ({error})") from None


def _read_idx(file, size: int, packed: bool) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise FormatError(f"expected an IDX file, which begins with two zero bytes, "
                          f"found {kind_of(head + file.read(40))}")
    if head[2] not in IDX_TYPES:
        raise FormatError(f"expected an IDX element type (08 09 0B 0C 0D 0E), found {head[2]:02X}")
    dtype, dimensions = np.dtype(IDX_TYPES[head[2]]), head[3]
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise FormatError(f"expected {dimensions} dimensions in the header, found its end")
    shape = struct.unpack(f">{dimensions}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    wanted = f"expected {expected:,} bytes of elements for the header's shape {shape_text(shape)}"
    # A raw file's size is known before a byte is read; a gzip file's can only be bounded.
    if packed and expected > size * DEFLATE_LIMIT:
        raise FormatError(f"{wanted}, found a gzip file of {size:,}")
    if not packed and expected != (found := size - 4 - 4 * dimensions):
        raise FormatError(f"{wanted}, found {found:,}")
    data = bytearray()
    while len(data) <= expected and (piece := file.read(min(1 << 20, expected + 1 - len(data)))):
        data += piece
    if len(data) != expected:
        raise FormatError(f"{wanted}, found {'more' if len(data) > expected else f'{len(data):,}'}")
    array = np.frombuffer(data, dtype)
    try:
        array = array.reshape(shape)
    except ValueError:  # more than 64 dimensions, or (0, 4294967295, 4294967295, ...)
        raise FormatError(f"expected a shape that numpy holds, found {shape_text(shape)}") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def may_be_idx(head: bytes) -> bool:
    """Whether a file of these first bytes may be IDX, raw or packed by gzip. Three zero bytes begin
    a HEIC picture."""
    return head[:2] in (b"\0\0", b"\x1f\x8b") and head[:3] != b"\0\0\0"


def idx_bytes(array: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The header and the big-endian elements of the IDX file that holds `array`."""
    array = np.asarray(array)
    name = array.dtype.newbyteorder(">").str.lstrip("|>")
    codes = {dtype.lstrip(">"): code for code, dtype in IDX_TYPES.items()}
    if name not in codes:
        raise ValueError(f"IDX has no element type for {array.dtype}: convert it to uint8, int8, "
                         "int16, int32, float32 or float64")
    if array.ndim > 255 or max(array.shape, default=0) >= 2**32:
        raise ValueError(f"the shape {array.shape} does not fit into an IDX header")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[name], array.ndim, *array.shape)
    return header, array.astype(f">{name}", order="C", copy=False)


def write_idx(path, array: np.ndarray) -> None:
    """Write an array as an IDX file, packed by gzip if the name ends in .gz; whole or not at all.
    Raises ValueError for an element type that IDX does not have (bool, int64, ...)."""
    header, elements = idx_bytes(array)

    def write(file):
        file.write(header)
        file.write(elements.tobytes())

    def write_packed(file):  # mtime=0: the same array gives the same file
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
            write(packed)

    write_whole(path, write_packed if str(path).endswith(".gz") else write)


# --- MNIST on the disk ------------------------------------------------------


FILES = {  # name: SHA-256 of the unpacked content, its size in bytes
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47_040_016),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_008),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7_840_016),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_008),
}


def find_files(root: Path) -> dict[str, Path]:
    """Where the four files lie: in `root`, in root/MNIST/raw (torchvision's layout), or in
    root/train and root/test. Returns name: path, for the first layout that has all four, else for
    the first that has any."""
    best = {}
    for train, test in [(root, root), (root / "MNIST/raw",) * 2, (root / "train", root / "test")]:
        found = {}
        for name in FILES:
            folder = train if name.startswith("train") else test
            spellings = [name, name.replace("-idx", ".idx")]
            for spelling in [s + end for s in spellings for end in ("", ".gz")]:
                if (folder / spelling).is_file():
                    found.setdefault(name, folder / spelling)
        if len(found) == 4:
            return found
        best = best or found
    return best


# --- The data set as tensors ----------------------------------------------------------------------

@dataclass
class Digits:
    """A data set in memory: images (N, H, W) uint8, labels (N,) int64 from 0 to classes - 1."""
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    @property
    def classes(self) -> int:
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    def hashes(self) -> dict[str, str]:
        """The SHA-256 that the four IDX files have unpacked, whatever files the data came from."""
        labels = np.uint8 if self.classes <= 256 else np.int32
        arrays = (self.train_images.numpy(), self.train_labels.numpy().astype(labels),
                  self.test_images.numpy(), self.test_labels.numpy().astype(labels))
        return {name: sha256(*idx_bytes(array)) for name, array in zip(FILES, arrays)}

    def is_mnist(self) -> bool:
        """Whether this is MNIST itself, to the byte."""
        return all(FILES[name][0] == value for name, value in self.hashes().items())


def load_digits(root="data", download: bool = True, mirror: str | None = None) -> Digits:
    """Load a data set from `root`: the four IDX files in any of the layouts of `find_files`, or
    picture folders root/train/CLASS/*.png. With none there, MNIST is downloaded to it.
    Raises FormatError for files that don't fit together, OSError where the data can't be had."""
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise FileNotFoundError(f"{root}: expected the folder of a data set, found a file")
    found = find_files(root)
    missing = [name for name in FILES if name not in found]
    if missing and not found and has_folders(root):
        train_images, train_labels, test_images, test_labels = read_folders(root)
    else:
        if missing:
            found = _complete(root, found, missing, download, mirror)
        train_images, train_labels = _read_pair(found, "train")
        test_images, test_labels = _read_pair(found, "t10k")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise FormatError(f"{root}: training images of {shape_text(train_images.shape[1:])} "
                          f"pixels, but test images of {shape_text(test_images.shape[1:])}")
    train_labels, test_labels = train_labels.astype(np.int64), test_labels.astype(np.int64)
    digits = Digits(*map(torch.from_numpy, (train_images, train_labels, test_images, test_labels)))
    if not 2 <= digits.classes <= 1000:
        raise FormatError(f"{root}: expected 2 to 1000 classes, "
                          f"found labels up to {digits.classes - 1}")
    return digits


def _complete(root: Path, found: dict, missing: list[str], allowed: bool, mirror) -> dict:
    """Download the files that are missing, unless those that are there are not MNIST's own."""
    for name, path in found.items():
        if sha256(*idx_bytes(read_idx(path))) != FILES[name][0]:
            raise FileNotFoundError(
                f"{path.parent}: {', '.join(missing)} missing beside {path.name}; "
                "it is not MNIST's, so nothing is downloaded: put the file there")
    folders = class_folders(root) if root.is_dir() and not found else []
    own = [path.name for path in folders if path.name in ("train", "test") or path.name.isdigit()]
    if own:  # somebody's own pictures: to train on MNIST in their place would mislead
        raise FormatError(f"{root}: expected IDX files, or pictures in train/CLASS and test/CLASS; "
                          f"found folders {', '.join(own[:4])}, but not all of these")
    if not allowed:
        raise FileNotFoundError(f"{root}: no data set there; expected {', '.join(missing)}")
    download(root, missing, FILES, mirror or os.environ.get("MNIST_MIRROR"))
    return {**found, **{name: root / name for name in missing}}


def _read_pair(found: dict[str, Path], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) uint8 and labels (N,) of one part, checked against each other."""
    images_path = found[f"{part}-images-idx3-ubyte"]
    labels_path = found[f"{part}-labels-idx1-ubyte"]
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise FormatError(f"{images_path}: expected images, three dimensions of unsigned bytes, "
                          f"found {shape_text(images.shape)} of {images.dtype}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise FormatError(f"{labels_path}: expected labels, one dimension of integers, "
                          f"found {shape_text(labels.shape)} of {labels.dtype}")
    if len(images) != len(labels):
        raise FormatError(f"{images_path} has {len(images):,} images, but {labels_path} has "
                          f"{len(labels):,} labels: one label an image is needed")
    if not images.size:
        raise FormatError(f"{images_path}: expected images, found {shape_text(images.shape)}")
    if labels.min() < 0:
        raise FormatError(f"{labels_path}: expected labels from 0, found {labels.min()}")
    return images, labels


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
    counts = sum(torch.bincount(part.reshape(-1), minlength=256) for part in images.split(1000))
    counts = counts.double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts @ levels / counts.sum()).item()
    std = (counts @ (levels - mean) ** 2 / counts.sum()).sqrt().item()
    if not std:
        raise FormatError(f"expected images, found the same grey ({mean * 255:.0f}) in all pixels")
    return mean, std


def standardise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """(B, H, W) of 0 to 255, uint8 or float32, becomes (B, 1, H, W) float32 with mean 0 and
    standard deviation 1. Training, evaluation and inference all call this."""
    return images.unsqueeze(1).sub(255 * mean).mul_(1 / (255 * std))  # a new tensor: sub, not sub_


def facts(digits: Digits) -> str:
    """The counts, the size, the mean and standard deviation, and the count of each class."""
    mean, std = mean_std(digits.train_images)
    train, test = (torch.bincount(labels, minlength=digits.classes).tolist()
                   for labels in (digits.train_labels, digits.test_labels))
    lines = [f"images    {sum(train):,} for training, {sum(test):,} for testing, "
             f"{shape_text(digits.train_images.shape[1:])} pixels", f"pixels    mean {mean:.4f}, "
             f"standard deviation {std:.4f} (training images, black 0, white 1)",
             f"classes   {digits.classes}", f"{'class':>8}{'training':>10}{'test':>8}"]
    return "\n".join(lines + [f"{label:>8}{count:>10,}{test[label]:>8,}"
                              for label, count in enumerate(train)])


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
        source, target = map(Path, options.convert)
        if not has_folders(source):
            raise UsageError(f"--convert {source}: expected train/CLASS and test/CLASS in it")
        for name, array in zip(FILES, read_folders(source)):
            write_idx(target / name, array.astype(np.uint8 if array.max() < 256 else np.int32))
            say(f"wrote {target / name}")
        return 0
    for path in options.files:
        array = read_idx(path)
        say(f"{path}: {shape_text(array.shape)} of {array.dtype}, {array.nbytes:,} bytes"
            + (f", from {array.min()} to {array.max()}" if array.size else ""))
    if not options.files:
        digits = load_digits(options.data, mirror=options.mirror)
        itself = ", MNIST itself, to the byte" if digits.is_mnist() else ""
        say(f"data set  {options.data}{itself}")
        say(facts(digits))
    return 0


if __name__ == "__main__":
    run_script(main)
