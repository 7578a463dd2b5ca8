"""Files: written whole or not at all, read with a limit, and told by their first bytes."""
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from support.errors import FormatError, UsageError


# How a file begins says what it is, whatever its name says.
SIGNATURES = [(b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"),
              (b"GIF8", "a GIF picture"), (b"BM", "a BMP picture"), (b"II*\0", "a TIFF picture"),
              (b"MM\0*", "a TIFF picture"),
              *[(f"P{kind}".encode(), "a Netpbm picture") for kind in range(1, 7)],
              (b"%PDF", "a PDF document"),
              (b"\x1f\x8b", "a gzip file"), (b"PK\x03\x04", "a zip file"),
              (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
              (b"<svg", "an SVG picture"), (b"<", "an HTML page"), (b"{", "JSON text")]


def kind_of(head: bytes) -> str:
    """What a file is, in words, told from its first bytes."""
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"avif"):
        return "a HEIC or AVIF picture"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    for start, kind in SIGNATURES:
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(start):
            return kind
    return "an empty file" if not head else f"a file that begins with {head[:4].hex(' ')}"


def write_whole(path, write) -> None:
    """Write a file so that it is there whole or not at all: `write(file)` fills a temporary file
    beside it, which is flushed to the disk and then renamed."""
    path = Path(os.path.realpath(path))  # a link stays, what it points to is replaced
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: expected the name of a file, found a folder or a device")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        with open(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)  # Ctrl-C may come just after the rename
        if isinstance(error, OSError):  # "disk full" alone does not say where
            error.filename, error.filename2 = str(path), None
        raise


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
        if (size := os.fstat(file.fileno()).st_size) > 1 << 30:
            raise FormatError(f"{path}: expected at most 1 GB, found {size:,} bytes")
        return file.read()


UMASK = os.umask(0o022)  # it can only be read by setting it
os.umask(UMASK)


DEFLATE_LIMIT = 1040  # deflate, the method of gzip and PNG, never packs better than 1032 to 1


def sha256(*parts) -> str:
    """The SHA-256 of bytes or C-contiguous arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
