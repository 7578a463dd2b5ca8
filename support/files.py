"""Files: written whole or not at all, read with a limit, and told by their first bytes."""
import gzip
import hashlib
import os
import secrets
import stat
import zlib
from contextlib import contextmanager
from pathlib import Path

from support.errors import FormatError, UsageError

GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_LIMIT = 1040  # deflate, the method of gzip and PNG, never packs better than 1032 to 1
MAX_BYTES = 1 << 30  # of a file that is read as a whole; photographs have some 10 MB

# How a file begins says what it is, whatever its name says.
SIGNATURES = [
    (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"), (b"II*\0", "a TIFF picture"), (b"MM\0*", "a TIFF picture"),
    (b"%PDF", "a PDF document"), (GZIP_MAGIC, "a gzip file"), (b"PK\x03\x04", "a zip file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
    (b"<svg", "an SVG picture"), (b"<?xml", "an XML document, perhaps SVG"),
    (b"<", "an HTML page"), (b"{", "JSON text")]
BLANKS = b"\xef\xbb\xbf \r\n\t"  # what may stand before a text: a byte order mark, white space


def kind_of(head: bytes) -> str:
    """What a file is, in words, told from its first bytes."""
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"avif"):
        return "a HEIC or AVIF picture"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"):
        return "a Netpbm picture"
    for start, kind in SIGNATURES:
        if head.lstrip(BLANKS).startswith(start):
            return kind
    return f"a file that begins with {head[:4].hex(' ')}"


def find_files(root: Path, names) -> dict[str, Path]:
    """Where a data set's IDX files of these names lie: in `root`, in root/MNIST/raw (torchvision's
    layout), or in root/train and root/test; raw or .gz, -idx or .idx. Returns name: path, for the
    layout that has most of them."""
    layouts = []
    for train_folder, test_folder in [(".", "."), ("MNIST/raw", "MNIST/raw"), ("train", "test")]:
        found = {}
        for name in names:
            folder = root / (train_folder if name.startswith("train") else test_folder)
            dotted = name.replace("-idx", ".idx")
            for spelling in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
                if (folder / spelling).is_file():
                    found.setdefault(name, folder / spelling)
        layouts.append(found)
    return max(layouts, key=len)  # the first of equals


def write_whole(path, write) -> None:
    """Write a file so that it is there whole or not at all: `write(file)` fills a temporary file
    beside it, which is flushed to the disk and then renamed. Raises OSError with the file's name,
    UsageError where the name is that of a folder or a device, or its folder is a file."""
    path = Path(os.path.realpath(path))  # a link stays, what it points to is replaced
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: expected the name of a file, found a folder or a device")
    if path.parent.exists() and not path.parent.is_dir():
        raise UsageError(f"{path.parent}: expected a folder, found a file; choose another place")
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # "disk full" alone does not say where
        raise
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def open_file(path):
    """open(path, "rb"), but FormatError for a pipe or a device, which may have no end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open() refuses a folder
        raise FormatError(f"{path}: expected a file, found a device or a pipe")
    return open(path, "rb")


def read_file(path) -> bytes:
    """The bytes of a file. Raises FormatError for a pipe, a device or more than a gigabyte, OSError
    when it can't be read."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path}: expected at most 1 GB, found {size:,} bytes")
        return file.read()


@contextmanager
def unpacked(file):
    """An open file or, if gzip packed it, what is packed in it, as a file. Raises FormatError where
    that breaks off or is damaged."""
    packed = file.read(2) == GZIP_MAGIC
    file.seek(0)
    if not packed:
        yield file
        return
    try:
        yield gzip.GzipFile(fileobj=file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"expected a whole gzip file, found a broken one ({error})") from None


def read_into(file, array) -> int:
    """Fill a byte array from an open file, as far as that goes; returns the number of bytes. Piece
    by piece: at once, a gzip file would take as much memory again."""
    view = memoryview(array)
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled : filled + (1 << 18)])
        if not count:
            break
        filled += count
    return filled


def sha256(*parts) -> str:
    """The SHA-256 of bytes or C-contiguous arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def check_writable(path: Path, flag: str) -> None:
    """Raise UsageError, which names the flag, if a file of this name cannot be written."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{flag} {path} is a folder or a device; give the name of a file")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK) or len(path.name) > 200:
        raise UsageError(f"{flag} {path}: it cannot be written to; choose another place")
