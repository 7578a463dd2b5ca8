"""PNG, read and written. Section numbers are those of the W3C's "Portable Network Graphics
Specification (Third Edition)", https://www.w3.org/TR/png-3/."""
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from support.errors import FormatError
from support.files import DEFLATE_LIMIT, kind_of, write_whole

SIGNATURE = b"\x89PNG\r\n\x1a\n"  # section 5.2

# Section 11.2.1: the colour types, the samples that a pixel of each has, and the bits of a sample.
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16),
          RGBA: (8, 16)}

# Section 5.6: which chunks each of these may not follow.
NOT_AFTER = {"PLTE": ["PLTE", "tRNS", "IDAT"], "tRNS": ["tRNS", "IDAT"]}

# Section 8.1: first row, first column, row step and column step of each of the passes.
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
         (1, 0, 2, 1)]

# What a photograph needs, and what memory holds: 100 megapixels are 400 MB of RGBA.
MAX_PIXELS, MAX_SIDE = 100_000_000, 65_535
FEW_PIXELS = 1 << 14  # that become RGBA at once
PIECE = 1 << 16  # bytes that are unpacked at once


def read_png(data: bytes) -> np.ndarray:
    """Decode a PNG file: every colour type, bit depth, filter and interlacing of the specification.

    Returns (H, W, 4) uint8 RGBA, not premultiplied. 16-bit samples keep their high byte; gamma and
    colour profiles are not applied. Besides the data and the result, it takes at most 8 bytes a
    pixel of memory. Raises FormatError, which names the chunk, for a broken file.
    """
    png, packed = _gather(data)
    channels = CHANNELS[png.colour]
    bytes_per_pixel = max(1, channels * png.depth // 8)  # rounded up to one: section 9.2
    bands = _bands(png, bytes_per_pixel)
    scanlines = _inflate(packed, [rows * (1 + length) for _, rows, _, length, _ in bands])
    rgba = np.empty((png.height, png.width, 4), np.uint8)
    for where, rows, columns, length, is_first in bands:
        lines = None  # before the next band takes memory
        lines = next(scanlines).reshape(rows, 1 + length)  # the filter's type, then the row
        if is_first:
            above = np.zeros(length, np.uint8)
        lines = _unfilter(lines[:, 0], lines[:, 1:], above, bytes_per_pixel)
        above = lines[-1].copy()
        part = rgba[where]
        few = max(1, FEW_PIXELS // columns)  # rows, for what is made of them takes some memory
        for top in range(0, rows, few):
            samples = _unpack(lines[top : top + few], png.depth, columns * channels)
            part[top : top + few] = _to_rgba(samples.reshape(-1, columns, channels), png)
    return rgba


# --- Chunks ---------------------------------------------------------------------------------------

@dataclass
class Png:
    """What the chunks say: IHDR, and what two others add, None if they are not there."""
    width: int
    height: int
    depth: int  # bits a sample
    colour: int
    interlaced: bool
    palette: np.ndarray | None = None  # PLTE, its alpha from tRNS: (colours, 4) uint8
    transparent: np.ndarray | None = None  # tRNS of the others: the samples that are transparent


def _chunks(data: bytes):
    """Yield each chunk's name and bytes (not copied), up to IEND."""
    if not data.startswith(SIGNATURE):  # section 5.2
        raise FormatError(f"expected the signature of a PNG file, found {kind_of(data[:48])}")
    view = memoryview(data)
    position, name = len(SIGNATURE), "signature"
    while name != "IEND":
        # Section 5.3: length, name, as many bytes as the length says, and a checksum.
        if position + 12 > len(data):
            raise FormatError(f"{name}: expected another chunk after it, found the end of the file")
        length, letters = struct.unpack_from(">I4s", data, position)
        if not letters.isalpha():
            raise FormatError("expected the name of a chunk, four letters, "
                              f"found {letters.hex(' ')}")
        name = letters.decode("ascii")
        end = position + 8 + length
        if end + 4 > len(data):
            raise FormatError(f"{name}: expected {length:,} bytes, found the end of the file")
        expected, = struct.unpack_from(">I", data, end)
        found = zlib.crc32(view[position + 4 : end])
        if found != expected:
            raise FormatError(f"{name}: expected the checksum (CRC) {expected:08x}, "
                              f"found {found:08x}")
        yield name, view[position + 8 : end]
        position = end + 4


def _gather(data: bytes) -> tuple[Png, list[memoryview]]:
    """Go through the chunks, check their order (section 5.6), and keep what matters of them: what
    the small ones say, and the bytes of each IDAT."""
    png = previous = None
    packed = []
    seen = set()
    for name, body in _chunks(data):
        if (name == "IHDR") != (png is None):
            raise FormatError(f"{name}: expected IHDR as the first chunk and only there")
        for other in NOT_AFTER.get(name, []):
            if other in seen:
                raise FormatError(f"{name}: expected none after {other}, found one")
        if name == "IHDR":
            png = _read_header(body)
        elif name == "PLTE":
            png.palette = _read_palette(body, png)
        elif name == "tRNS":
            _read_transparent(body, png)
        elif name == "IDAT":
            if name in seen and previous != name:
                raise FormatError(f"IDAT: expected all of them in a row, found {previous} between")
            packed.append(body)
        elif name == "IEND":
            if body:  # section 11.2.4
                raise FormatError(f"IEND: expected no bytes in it, found {len(body)}")
        elif name[0].isupper():  # section 5.4: what it holds cannot be left out
            raise FormatError(f"{name}: expected IHDR, PLTE, IDAT or IEND, "
                              "found a critical chunk that the specification does not know")
        seen.add(name)
        previous = name
    if png.colour == PALETTE and png.palette is None:  # section 11.2.2
        raise FormatError("PLTE: expected a palette for colour type 3, found none")
    return png, packed


def _read_header(body: bytes) -> Png:
    """Section 11.2.1."""
    if len(body) != 13:
        raise FormatError(f"IHDR: expected 13 bytes, found {len(body)}")
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", body)
    if depth not in DEPTHS.get(colour, ()):
        raise FormatError("IHDR: expected colour type 0, 2, 3, 4 or 6 and a bit depth that it has, "
                          f"found type {colour} with a depth of {depth}")
    if methods not in ([0, 0, 0], [0, 0, 1]):
        raise FormatError("IHDR: expected compression 0, filter 0 and interlace 0 or 1, "
                          f"found {methods}")
    check_size(width, height, "IHDR")
    return Png(width, height, depth, colour, interlaced=methods[2] == 1)


def check_size(width: int, height: int, where: str) -> None:
    """Refuse a picture with no pixels, or with so many that memory would not hold them."""
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise FormatError(f"{where}: expected one pixel to {MAX_PIXELS // 10**6} megapixels, and "
                          f"at most {MAX_SIDE:,} a side, found {width} × {height}")


def _read_palette(body: bytes, png: Png) -> np.ndarray:
    """Section 11.2.2."""
    if png.colour in (GREY, GREY_ALPHA):
        raise FormatError("PLTE: expected none in a grey picture, found one")
    most = 2**png.depth if png.colour == PALETTE else 256
    if len(body) % 3 or not 1 <= len(body) // 3 <= most:
        raise FormatError(f"PLTE: expected 1 to {most} colours of three bytes, "
                          f"found {len(body)} bytes")
    palette = np.full((len(body) // 3, 4), 255, np.uint8)
    palette[:, :3] = np.frombuffer(body, np.uint8).reshape(-1, 3)
    return palette


def _read_transparent(body: bytes, png: Png) -> None:
    """Section 11.3.1.1: an alpha for each of the palette's first colours, or one grey or colour."""
    if png.colour in (GREY_ALPHA, RGBA):
        raise FormatError(f"tRNS: expected none for colour type {png.colour}, found one")
    if png.colour == PALETTE:
        if png.palette is None or not 1 <= len(body) <= len(png.palette):
            raise FormatError("tRNS: expected a byte for each of the first colours of PLTE, "
                              f"found {len(body)} bytes")
        png.palette[: len(body), 3] = np.frombuffer(body, np.uint8)
    else:
        if len(body) != 2 * CHANNELS[png.colour]:
            raise FormatError(f"tRNS: expected {2 * CHANNELS[png.colour]} bytes, found {len(body)}")
        png.transparent = np.frombuffer(body, ">u2")


# --- From IDAT to samples -------------------------------------------------------------------------

def _passes(png: Png) -> list[tuple]:
    """Where in the picture each pass lies, its rows, its columns, and the bytes of a row (section
    8.1). A pass of a small picture may be empty; it is left out."""
    passes = []
    for y, x, dy, dx in ADAM7 if png.interlaced else [(0, 0, 1, 1)]:
        rows, columns = len(range(y, png.height, dy)), len(range(x, png.width, dx))
        if rows and columns:
            bits = columns * CHANNELS[png.colour] * png.depth
            where = np.s_[y::dy, x::dx]
            passes.append((where, rows, columns, (bits + 7) // 8))  # rounded up: section 7.2
    return passes


def _bands(png: Png, bytes_per_pixel: int) -> list[tuple]:
    """The passes, those of many bytes a pixel cut into up to three bands of rows: where in the
    picture, rows, columns, bytes of a row, whether it is the first one of its pass. Scanlines take
    twice their bytes while their filters are undone: at most 6 bytes for each pixel of all."""
    bands = []
    for (ys, xs), rows, columns, length in _passes(png):
        most = math.ceil(rows / math.ceil(bytes_per_pixel / 3))
        for top in range(0, rows, most):
            count = min(most, rows - top)
            start = ys.start + top * ys.step
            where = slice(start, start + count * ys.step, ys.step), xs
            bands.append((where, count, columns, length, top == 0))
    return bands


def _inflate(packed: list[memoryview], sizes: list[int]):
    """Unpack the zlib stream of the IDAT chunks (section 10): yield as many bytes as each of the
    sizes says, (size,) uint8. Nothing is unpacked that was not asked for."""
    expected = sum(sizes)
    held = sum(len(body) for body in packed)
    if expected > held * DEFLATE_LIMIT:
        raise FormatError(f"IDAT: expected {expected:,} bytes of scanlines, found {held:,} "
                          "packed ones, which cannot hold them")
    pieces = (body[i : i + PIECE] for body in packed for i in range(0, len(body), PIECE))
    stream = zlib.decompressobj()
    unpacked = 0

    def more(count: int) -> bytes:
        """The next `count` bytes at the most, none at the end of the stream, or of the file."""
        data = b""
        piece = True
        while piece and not data and not stream.eof:
            piece = stream.unconsumed_tail or next(pieces, b"")
            try:
                data = stream.decompress(piece, count)
            except zlib.error as error:
                raise FormatError("IDAT: expected a zlib stream, found a broken one "
                                  f"({error})") from None
        return data

    wanted = f"IDAT: expected a zlib stream of {expected:,} bytes and its end"
    for size in sizes:
        lines = np.empty(size, np.uint8)
        filled = 0
        while filled < size:
            data = more(min(PIECE, size - filled))
            if not data:
                raise FormatError(f"{wanted}, found {unpacked + filled:,} bytes")
            lines[filled : filled + len(data)] = np.frombuffer(data, np.uint8)
            filled += len(data)
        unpacked += size
        if unpacked == expected:
            if more(1) or stream.unused_data or next(pieces, b""):
                raise FormatError(f"{wanted}, found more")
            if not stream.eof:
                raise FormatError(f"{wanted}, found {unpacked:,} bytes")
        yield lines
        lines = None  # before the next ones take memory


def _unfilter(kinds: np.ndarray, rows: np.ndarray, above: np.ndarray,
              bytes_per_pixel: int) -> np.ndarray:
    """Undo the filters of section 9: kinds (H,) and rows (H, bytes a row) become rows; `above` is
    the row before them.

    A filtered byte is what its guess leaves over. The guess comes from the pixel at the left (a),
    above (b) and above left (c): None 0, Sub a, Up b, Average (a + b) // 2, Paeth one of the three.
    Each pixel needs the one before it, so a row cannot be computed at once. But the pixels of a
    diagonal x + y = d need only those of the two diagonals before it, and they lie at equal
    distances in memory: a picture takes W + H steps instead of W * H.
    """
    if kinds.max() > 4:  # section 9.1
        raise FormatError(f"IDAT: expected a filter type from 0 to 4, found {kinds.max()}")
    if not kinds.any():
        return rows
    height, length = rows.shape
    width = length // bytes_per_pixel
    # What lies outside the picture counts as zero: one pixel at the left of each row.
    padded = np.zeros((height + 1, bytes_per_pixel + length), np.uint8)
    padded[0, bytes_per_pixel:] = above
    padded[1:, bytes_per_pixel:] = rows
    pixels = padded.reshape(-1, bytes_per_pixel)
    row = width + 1  # from a pixel to the one below it; to the one below left it is one less
    is_sub, is_up, is_average, is_paeth = [(kinds == kind).astype(np.int16)[:, None]  # (H, 1)
                                           for kind in (1, 2, 3, 4)]
    for diagonal in range(width + height - 1):
        top = max(0, diagonal - width + 1)  # the rows that this diagonal crosses
        bottom = min(diagonal, height - 1) + 1
        here = slice(top, bottom)
        start = (top + 1) * row + diagonal - top + 1
        stop = start + (bottom - top - 1) * (row - 1) + 1
        a, b, c = [pixels[start - back : stop - back : row - 1].astype(np.int16)
                   for back in (1, row, row + 1)]
        guess = (is_sub[here] * a + is_up[here] * b + is_average[here] * ((a + b) >> 1)
                 + is_paeth[here] * _paeth(a, b, c))
        pixels[start : stop : row - 1] += guess.astype(np.uint8)  # modulo 256: section 9.2
    return padded[1:, bytes_per_pixel:]


def _paeth(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Section 9.4: whichever of a, b and c is nearest to a + b - c, in this order where two are."""
    to_a = np.abs(b - c)
    to_b = np.abs(a - c)
    to_c = np.abs(a + b - 2 * c)
    b_or_c = np.where(to_b <= to_c, b, c)
    return np.where((to_a <= to_b) & (to_a <= to_c), a, b_or_c)


def _unpack(lines: np.ndarray, depth: int, count: int) -> np.ndarray:
    """Rows of bytes (H, bytes) become rows of `count` samples (section 7.2)."""
    if depth == 16:
        return np.ascontiguousarray(lines).view(">u2")
    if depth == 8:
        return lines
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)  # the leftmost pixel is the high bits
    samples = (lines[:, :, None] >> shifts) & (2**depth - 1)  # (H, bytes, samples a byte)
    return samples.reshape(len(lines), -1)[:, :count]


def _to_rgba(samples: np.ndarray, png: Png) -> np.ndarray:
    """Samples (H, W, channels) become (H, W, 4) uint8."""
    depth, colour = png.depth, png.colour
    if colour == PALETTE:
        if samples.max() >= len(png.palette):  # section 11.2.2
            raise FormatError(f"IDAT: expected one of the {len(png.palette)} colours of PLTE, "
                              f"counted from 0, found {samples.max()}")
        return png.palette[samples[..., 0]]
    rgba = np.full(samples.shape[:2] + (4,), 255, np.uint8)
    if png.transparent is not None:  # section 11.3.1.1: compared before 16 bits become 8
        rgba[(samples == png.transparent & (2**depth - 1)).all(-1), 3] = 0
    if depth == 16:
        samples = (samples >> 8).astype(np.uint8)
    elif depth < 8:
        samples = samples * np.uint8(255 // (2**depth - 1))  # white becomes 255: section 13.12
    if colour in (GREY_ALPHA, RGBA):
        rgba[..., 3] = samples[..., -1]
    if colour in (GREY, GREY_ALPHA):
        rgba[..., :3] = samples[..., :1]
    else:
        rgba[..., :3] = samples[..., :3]
    return rgba


# --- Writing --------------------------------------------------------------------------------------

def png_bytes(array: np.ndarray) -> bytes:
    """The PNG file that holds `array`: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8."""
    array = np.asarray(array)
    colours = {(): GREY, (3,): RGB, (4,): RGBA}
    fits = array.ndim > 1 and array.size and array.shape[2:] in colours
    if array.dtype != np.uint8 or not fits:
        raise ValueError("a PNG is made of (H, W) or (H, W, 3 or 4) uint8, "
                         f"not {array.shape} {array.dtype}")
    height, width = array.shape[:2]
    lines = np.zeros((height, 1 + array.size // height), np.uint8)  # filter 0 before each row
    lines[:, 1:] = array.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, colours[array.shape[2:]], 0, 0, 0)
    return (SIGNATURE + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b""))


def chunk(name: bytes, body: bytes) -> bytes:
    """Section 5.3."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def write_png(path, array: np.ndarray) -> None:
    """Write (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA uint8 as a PNG, whole or not at all."""
    data = png_bytes(array)
    write_whole(path, lambda file: file.write(data))
