"""PNG, read and written. Section numbers are those of the W3C's "Portable Network Graphics
Specification (Third Edition)"."""
import struct
import zlib

import numpy as np

from support.errors import FormatError
from support.files import DEFLATE_LIMIT, kind_of, write_whole

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
