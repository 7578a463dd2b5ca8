"""Whether IDX files are what they claim to be: one file by itself, and images and their labels."""
import gzip
import math
import os
from contextlib import suppress
from pathlib import Path

from support.errors import FormatError, shape_text
from support.files import DEFLATE_LIMIT, kind_of, read_into
from support.machine import memory_left
from support.mapped import map_file

import numpy as np


def check_header(file, codes) -> None:
    """Raise FormatError unless an open file begins with a whole IDX header, its element type one of
    `codes`. The file is at its start before and after."""
    head = file.read(4)
    if head.startswith(b"\0\0") and len(head) < 4:
        raise FormatError(f"expected an IDX header of 4 bytes or more, found {len(head)}")
    if not head.startswith(b"\0\0"):
        raise FormatError("expected an IDX file, which begins with two zero bytes, "
                          f"found {kind_of(head + file.read(40))}")
    code, dimensions = head[2:]
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise FormatError(f"expected {dimensions} dimensions in the header, found its end")
    if code not in codes:
        raise FormatError(f"expected an IDX element type (08 09 0B 0C 0D 0E), found {code:02X}")
    file.seek(0)


def read_elements(file, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """What follows the header in an open file, raw or a GzipFile: an array of the header's element
    type and shape, writable. Bytes of a raw file that are more than a quarter of the free memory
    stay on the disk, mapped and read-only. Raises FormatError for more or fewer elements than the
    header says: it can claim anything, so its claim is checked before memory is taken for it."""
    size = os.fstat(file.fileno()).st_size
    packed = isinstance(file, gzip.GzipFile)
    most = size
    if packed:
        most *= DEFLATE_LIMIT
    expected = math.prod(shape) * dtype.itemsize
    wanted = f"expected {expected:,} bytes of elements for the header's shape {shape_text(shape)}"
    if expected > most:
        raise FormatError(f"{wanted}, found a file of {size:,} bytes")
    memory = memory_left()
    whole = not packed and size == file.tell() + expected
    if whole and dtype.itemsize == 1 and expected > memory / 4:
        with suppress(OSError, ValueError):  # `ulimit -v`; more dimensions than numpy has
            return map_file(file, dtype, shape)
    if expected > memory:
        raise FormatError(f"{wanted}, found {memory:,} bytes of free memory; use fewer images")
    elements = np.empty(expected, np.uint8)
    found = read_into(file, elements)
    if found < expected:
        raise FormatError(f"{wanted}, found {found:,}")
    if file.read(1):
        raise FormatError(f"{wanted}, found more")
    try:
        return elements.view(dtype).reshape(shape)
    except ValueError:  # more than 64 dimensions, or (0, 4294967295, 4294967295, ...)
        raise FormatError(f"expected a shape that numpy holds, found {shape_text(shape)}") from None


def check_pair(images_path: Path, images: np.ndarray, labels_path: Path,
               labels: np.ndarray) -> None:
    """Raise FormatError unless these are images (N, H, W) uint8 and a label from 0 for each."""
    if images.ndim != 3 or images.dtype != np.uint8 or 0 in images.shape[1:]:
        raise FormatError(f"{images_path}: expected images, three dimensions of unsigned bytes, "
                          f"found {shape_text(images.shape)} of {images.dtype}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise FormatError(f"{labels_path}: expected labels, one dimension of integers, "
                          f"found {shape_text(labels.shape)} of {labels.dtype}")
    if len(images) != len(labels):
        raise FormatError(f"{labels_path}: expected {len(images):,} labels, one for each image of "
                          f"{images_path}, found {len(labels):,}")
    if labels.min(initial=0) < 0:
        raise FormatError(f"{labels_path}: expected labels from 0, found {labels.min()}")


def check_parts(root: Path, training: np.ndarray, test: np.ndarray) -> None:
    """Raise FormatError unless there are training images (N, H, W), and test images, perhaps none,
    of the same size."""
    if not len(training):  # no test images only means no test figures
        raise FormatError(f"{root}: expected training images, found none")
    if training.shape[1:] != test.shape[1:]:
        raise FormatError(f"{root}: expected training and test images of one size, found "
                          f"{shape_text(training.shape[1:])} and "
                          f"{shape_text(test.shape[1:])} pixels")
