"""Pictures of any format: read, found in folders, and folders of them as a data set."""
import functools
import io
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from support.command_line import Progress
from support.errors import FormatError, UsageError, in_file, shape_text
from support.files import kind_of, open_file, read_file
from support.png import SIGNATURE, check_size, read_png

SUFFIXES = {".png", ".pgm", ".ppm", ".pbm", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif",
            ".tiff", ".heic", ".heif", ".avif"}


def read_picture(data: bytes) -> np.ndarray:
    """Decode a picture file of any format: PNG here, others by Pillow where it is installed.
    Returns (H, W, 4) uint8 RGBA. Raises FormatError."""
    if data.startswith(SIGNATURE[:4]):  # what breaks the rest of it, read_png says
        return read_png(data)
    kind = kind_of(data[:64])
    if not kind.endswith("picture") or "SVG" in kind:
        raise FormatError(f"expected a picture, found {kind}")
    package = "pillow-heif" if "HEIC" in kind else "pillow"
    unknown = FormatError(f"this is {kind}: convert it to PNG, or run `pip install {package}`")
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise unknown from None
    with suppress(ImportError):
        import pillow_heif  # lets Pillow read HEIC, the format of iPhones
        pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            check_size(*picture.size, "header")
            return np.array(ImageOps.exif_transpose(picture).convert("RGBA"))
    except FormatError:
        raise
    except UnidentifiedImageError:
        raise unknown from None
    except Exception as error:  # Pillow's decoders raise whatever they like on a broken file
        raise FormatError(f"this is {kind} that Pillow cannot read ({error}); "
                          "convert it to PNG") from None


def luminance(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 RGBA becomes (H, W) float32 from 0 to 255, alpha ignored (ITU-R BT.601)."""
    return rgba[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)


# --- Folders as a data set ------------------------------------------------------------------------
# Hidden files and folders are left out: macOS and notebooks leave them about.

def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir()
                  if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir()
                  if path.is_dir() and not path.name.startswith("."))


def has_folders(root: Path) -> bool:
    """Whether root/train holds folders, as picture data sets do."""
    return (root / "train").is_dir() and bool(class_folders(root / "train"))


def read_folders(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read root/train/CLASS/*.png and root/test/CLASS/*.png, light ink on black as MNIST has it.
    Returns training images (N, H, W) uint8 and labels (N,) int64, then those for testing: none
    where there is no root/test. Raises FormatError."""
    parts = [root / part for part in ("train", "test") if (root / part).is_dir()]
    labels = class_labels({path.name for part in parts for path in class_folders(part)})
    train_images, train_labels = read_part(root / "train", labels)
    if len(parts) == 1:
        return train_images, train_labels, train_images[:0], train_labels[:0]
    return train_images, train_labels, *read_part(root / "test", labels)


def class_labels(names: set[str]) -> dict[str, int]:
    """The label of each class: its name, if all are numbers; else they are numbered in order."""
    if all(name.isascii() and name.isdigit() and len(name) < 4 for name in names):
        return {name: int(name) for name in sorted(names, key=int)}
    return {name: label for label, name in enumerate(sorted(names))}


def read_part(folder: Path, labels: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of folder/CLASS/*, all of the first one's size."""
    examples = [(path, label) for name, label in labels.items() if (folder / name).is_dir()
                for path in pictures_in(folder / name)]
    if not examples:
        raise FormatError(f"{folder}: expected pictures in its folders, found none")
    images = []
    with Progress(len(examples), f"reading {folder.name}") as bar:
        for path, _ in examples:
            data = read_file(path)
            with in_file(path):
                image = np.rint(luminance(read_picture(data))).astype(np.uint8)
                images.append(image)
                if image.shape != images[0].shape:
                    raise FormatError(f"expected {shape_text(images[0].shape)} pixels as in the "
                                      f"others, found {shape_text(image.shape)}")
            if bar.due():
                bar.show(len(images))
    return np.stack(images), np.array([label for _, label in examples], np.int64)


# --- Pictures to be read --------------------------------------------------------------------------

@functools.cache  # it can be read only once
def standard_input() -> bytes:
    return sys.stdin.buffer.read(1 << 30) if sys.stdin else b""


def pictures_at(path: str, index: list[int] | None, may_be_idx, read_idx) -> list:
    """The pictures at a path, a file, a folder, an IDX file (some of its images, if `index` says
    which) or "-" for standard input: a list of (path, index in an IDX file or None, a function that
    reads (H, W, 4) uint8 RGBA). Raises FormatError, OSError or UsageError."""
    if not path:
        raise UsageError("the name of a picture is empty")
    if path == "-":
        return [(path, None, lambda: read_picture(standard_input()))]
    if Path(path).is_dir():
        if index is not None:
            raise UsageError(f"--index is for IDX files; {path} is a folder")
        files = pictures_in(Path(path))
        if not files:
            raise FormatError("expected pictures in this folder, found none")
        return [(str(file), None, functools.partial(read_picture_file, file)) for file in files]
    with open_file(path) as file:
        head = file.read(3)
    if not may_be_idx(head):
        if index is not None:
            raise UsageError(f"--index is for IDX files; {path} is another file")
        return [(path, None, functools.partial(read_picture_file, path))]
    images = read_idx(path)
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        raise FormatError("expected images, three dimensions of unsigned bytes, "
                          f"found {shape_text(images.shape)} of {images.dtype}")
    for i in index or []:
        if i >= len(images):
            raise UsageError(f"--index {i}: {path} has {len(images):,} images, counted from 0")
    chosen = range(len(images)) if index is None else index
    return [(path, i, functools.partial(opaque, images[i])) for i in chosen]


def read_picture_file(path) -> np.ndarray:
    return read_picture(read_file(path))


def opaque(grey: np.ndarray) -> np.ndarray:
    """(H, W) uint8 becomes (H, W, 4) RGBA."""
    return np.dstack([grey, grey, grey, np.full_like(grey, 255)])
