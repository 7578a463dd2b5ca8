"""Pictures of any format: read, made grey and small, and found where somebody says they are."""
import functools
import io
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from support.errors import FormatError, UsageError, shape_text
from support.files import kind_of, open_file, read_file
from support.mnist_style import SIDE, resampling_table
from support.png import SIGNATURE, check_size, read_png

SUFFIXES = {".png", ".pgm", ".ppm", ".pbm", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif",
            ".tiff", ".heic", ".heif", ".avif"}


def read_picture(data: bytes) -> np.ndarray:
    """Decode a picture file of any format: PNG here, others by Pillow where it is installed.
    Returns (H, W, 4) uint8 RGBA. Raises FormatError."""
    if data.startswith(SIGNATURE[:4]):  # what breaks the rest of it, read_png says
        return read_png(data)
    kind = kind_of(data[:64])
    if not kind.endswith("picture"):
        raise FormatError(f"expected a picture, found {kind}")
    if "SVG" in kind:
        raise FormatError(f"this is {kind}, which has no pixels: convert it to PNG")
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, and of odd EXIF data
            picture = Image.open(io.BytesIO(data))
            check_size(*picture.size, "header")
            picture = ImageOps.exif_transpose(picture)
            if picture.mode == "F" or picture.mode.startswith("I"):  # Pillow would cut off at 255
                return opaque(eight_bits(np.array(picture)))
            return np.array(picture.convert("RGBA"))
    except FormatError:
        raise
    except UnidentifiedImageError:
        if "HEIC" in kind:
            raise unknown from None
        raise FormatError(f"this is {kind} that Pillow cannot read: it is broken, or cut off; get "
                          "it again, or convert it to PNG") from None
    except Exception as error:  # Pillow's decoders raise whatever they like on a broken file
        raise FormatError(f"this is {kind} that Pillow cannot read ({error}); "
                          "convert it to PNG") from None


def eight_bits(grey: np.ndarray) -> np.ndarray:
    """(H, W) of 16 bits, or of any other numbers, becomes uint8. White is the highest that the type
    has or, where the type does not say it, the first of these that no pixel exceeds."""
    most = float(grey.max())
    if grey.dtype.kind == "u" and grey.itemsize == 2:
        white = 65535
    else:
        white = next(white for white in (1, 255, 65535, most) if most <= white)
    return np.rint(grey.clip(0) * (255 / white)).astype(np.uint8)


def luminance(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 RGBA becomes (H, W) float32 from 0 to 255, alpha ignored (ITU-R BT.601)."""
    return rgba[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)


def small_grey(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) of 0 to 255 becomes (28, 28) uint8: its luminance, each new pixel the mean over its
    area of the old ones. A grey picture of 28 × 28 pixels stays as it is."""
    rows, columns = (resampling_table(size, SIDE) for size in rgb.shape[:2])
    channels = [rows @ rgb[..., k].astype(np.float32) @ columns.T for k in range(3)]
    return np.rint(luminance(np.dstack(channels))).clip(0, 255).astype(np.uint8)


def as_it_is(rgb: np.ndarray, inverted: bool) -> np.ndarray:
    """`small_grey`, turned round if the pictures of the training were."""
    grey = small_grey(rgb)
    return 255 - grey if inverted else grey


# --- Pictures to be read --------------------------------------------------------------------------
# Hidden files are left out: macOS and notebooks leave them about.

def is_picture(name: str) -> bool:
    """Whether the name of a file is that of a picture."""
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_picture(path.name))


@functools.cache  # it can be read only once
def standard_input() -> bytes:
    return sys.stdin.buffer.read(1 << 30) if sys.stdin else b""


def pictures_at(path: str, index: list[int] | None, may_be_idx, read_idx) -> list:
    """The pictures at a path, a file, a folder, an IDX file (some of its images, if `index` says
    which) or "-" for standard input: a list of (path, index in an IDX file or None, a function that
    reads (H, W, 4) uint8 RGBA). Raises FormatError, OSError or UsageError."""
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


def check_not_read(flag: str, out: str | None, inputs: list) -> None:
    """Raise UsageError if the file `out`, by this name or another one, is among the inputs, or is a
    picture in a folder that is: writing it would destroy what was read."""
    if out is None or not Path(out).is_file():
        return
    for path in map(Path, inputs):
        files = [path]
        with suppress(OSError):  # what cannot be read is said of each picture
            if path.is_dir():
                files = pictures_in(path)
            if any(file.exists() and file.samefile(out) for file in files):
                raise UsageError(f"{flag} {out}: this is one of the files to read; "
                                 "give another name")
