"""PNG against files that are encoded here one pixel at a time, as the specification puts it."""
import itertools
import struct
import tracemalloc
import zlib

import numpy as np

from support import pictures, png
from support.test_tools import TestCase, fuzz

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
KINDS = [(GREY, 1), (GREY, 2), (GREY, 4), (GREY, 8), (GREY, 16), (RGB, 8), (RGB, 16), (PALETTE, 1),
         (PALETTE, 2), (PALETTE, 4), (PALETTE, 8), (GREY_ALPHA, 8), (GREY_ALPHA, 16), (RGBA, 8),
         (RGBA, 16)]
ADAM7 = ["16462646", "77777777", "56565656", "77777777",  # section 8.1, figure: the pass of each
         "36463646", "77777777", "56565656", "77777777"]  # pixel in a square of 8×8


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header(*values: int) -> bytes:
    """IHDR of width, height, depth, colour, compression, filter, interlace."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *values))


def file(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def slow_filter(kind: int, line: bytes, previous: bytes, bpp: int) -> bytes:
    """A row, filtered (section 9)."""
    out = bytearray()
    for i, value in enumerate(line):
        a = c = 0
        if i >= bpp:
            a, c = line[i - bpp], previous[i - bpp]
        b = previous[i]
        p = a + b - c
        paeth = min((a, b, c), key=lambda guess: abs(p - guess))  # min takes the first of equals
        guess = [0, a, b, (a + b) // 2, paeth][kind]
        out.append((value - guess) % 256)
    return bytes(out)


def slow_png(samples, depth: int, colour: int, interlaced: bool, rng, extra: bytes = b"") -> bytes:
    """Encode (H, W, channels) samples, one pixel at a time, with a random filter for each row."""
    height, width, channels = samples.shape
    out = bytearray()
    for number in range(1, 8) if interlaced else [0]:
        previous = None
        for y in range(height):
            row = [samples[y, x] for x in range(width)
                   if not interlaced or ADAM7[y % 8][x % 8] == str(number)]
            if not row:
                continue
            bits = "".join(f"{int(v):0{depth}b}" for pixel in row for v in pixel)
            bits += "0" * (-len(bits) % 8)
            line = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
            kind = int(rng.integers(5))
            out.append(kind)
            out += slow_filter(kind, line, previous or bytes(len(line)),
                               max(1, channels * depth // 8))
            previous = line
    packed = zlib.compress(bytes(out))
    cut = len(packed) // 2
    return file(header(width, height, depth, colour, 0, 0, interlaced),
                chunk(b"teXt", b"ancillary"), extra, chunk(b"IDAT", packed[:cut]), chunk(b"IDAT"),
                chunk(b"IDAT", packed[cut:]), chunk(b"IEND"))


def slow_rgba(pixel, depth: int, colour: int, palette, alpha, see_through) -> list[int]:
    """One pixel's samples as RGBA."""
    if colour == PALETTE:
        index = int(pixel[0])
        return [*palette[index], alpha[index] if index < len(alpha) else 255]
    if depth == 16:
        values = [int(sample) >> 8 for sample in pixel]
    else:
        values = [int(sample) * 255 // (2**depth - 1) for sample in pixel]
    if colour in (GREY, GREY_ALPHA):
        values = [values[0]] * 3 + values[1:]
    if colour in (GREY, RGB):
        values.append(0 if list(pixel) == list(see_through) else 255)
    return values


class TestPng(TestCase):
    def test_every_colour_depth_filter_and_interlacing(self):
        rng = np.random.default_rng(0)
        for (colour, depth), interlaced, (height, width) in itertools.product(
                KINDS, (False, True), [(1, 1), (1, 9), (7, 3), (13, 17)]):
            samples = rng.integers(0, 2**depth, (height, width, CHANNELS[colour]))
            extra = palette = alpha = b""
            if colour == PALETTE:
                palette = rng.integers(0, 256, (2**depth, 3), dtype=np.uint8)
                alpha = rng.integers(0, 256, len(palette) - 1, dtype=np.uint8)
                extra = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", alpha.tobytes())
            elif colour in (GREY, RGB):
                extra = chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())
            found = png.read_png(slow_png(samples, depth, colour, interlaced, rng, extra))
            expected = [[slow_rgba(pixel, depth, colour, palette, alpha, samples[0, 0])
                         for pixel in row] for row in samples]
            np.testing.assert_array_equal(
                found, expected, f"colour {colour} depth {depth} {interlaced} {height} × {width}")

    def test_diagonals_of_long_pictures(self):
        rng = np.random.default_rng(1)
        for shape in [(1100, 3, 1), (3, 1100, 1), (200, 1, 4), (1, 200, 4)]:
            samples = rng.integers(0, 256, shape)
            colour = GREY if shape[2] == 1 else RGBA
            rgba = png.read_png(slow_png(samples, 8, colour, False, rng))
            np.testing.assert_array_equal(rgba[..., : shape[2]], samples)

    def test_write_and_read(self):
        rng = np.random.default_rng(2)
        for shape in [(5, 7), (1, 1), (5, 7, 3), (5, 7, 4)]:
            array = rng.integers(0, 256, shape, dtype=np.uint8)
            png.write_png(self.folder / "a.png", array)
            rgba = png.read_png((self.folder / "a.png").read_bytes())
            pixels = array.reshape(*shape[:2], -1)  # (H, W, channels)
            np.testing.assert_array_equal(rgba[..., : pixels.shape[2]], pixels)
        for bad in (np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 3), np.uint8),
                    np.uint8(1)):
            self.assertRaises(ValueError, png.png_bytes, bad)


class TestBrokenPng(TestCase):
    """What is wrong is named, and the chunk that it is in."""

    DATA = zlib.compress(b"\0ab\0cd")
    IHDR, IDAT, IEND = header(2, 2, 8, GREY, 0, 0, 0), chunk(b"IDAT", DATA), chunk(b"IEND")

    def broken(self, data: bytes, *words: str):
        self.fails(lambda: png.read_png(data), *words)

    def test_a_whole_one(self):
        rgba = png.read_png(file(self.IHDR, self.IDAT, self.IEND))
        self.assertEqual(rgba[..., 0].tobytes(), b"abcd")

    def test_chunks(self):
        ihdr, idat, iend = self.IHDR, self.IDAT, self.IEND
        for data, *words in [
                (b"GIF89a", "signature", "GIF"), (file(ihdr, idat), "IDAT", "end of the file"),
                (file(ihdr, idat, iend)[:-1], "IDAT"), (file(idat, iend), "IDAT", "IHDR"),
                (file(ihdr, ihdr, idat, iend), "IHDR"), (file(ihdr, iend), "IDAT", "found 0"),
                (file(ihdr, idat[:-1] + b"!", iend), "IDAT", "CRC"),
                (file(ihdr, idat, chunk(b"tEXt"), idat, iend), "IDAT", "in a row"),
                (file(ihdr, chunk(b"ABCD"), idat, iend), "ABCD", "critical"),
                (file(ihdr, chunk(b"a1cd"), idat, iend), "four letters"),
                (file(ihdr, chunk(b"PLTE", b"abc"), idat, iend), "PLTE", "grey"),
                (file(ihdr, chunk(b"tRNS", b"abc"), idat, iend), "tRNS", "2 bytes", "found 3"),
                (file(ihdr, idat, chunk(b"tRNS", b"ab"), iend), "tRNS"),
                (file(ihdr, idat, chunk(b"IEND", b"x")), "IEND")]:
            self.broken(data, *words)

    def test_data(self):
        for data, *words in [
                (self.DATA[:-2], "6"), (self.DATA[:-1] + b"\0", "zlib"), (self.DATA + b"x", "more"),
                (zlib.compress(b"\0ab\0cde"), "more"), (zlib.compress(b"\0ab\0c"), "found 5"),
                (zlib.compress(b"\0ab\5cd"), "filter", "found 5")]:
            self.broken(file(self.IHDR, chunk(b"IDAT", data), self.IEND), "IDAT", *words)

    def test_header(self):
        self.broken(file(chunk(b"IHDR", bytes(12)), self.IDAT, self.IEND), "IHDR", "13 bytes")
        for values, *words in [
                ((0, 2, 8, 0, 0, 0, 0), "IHDR", "0 × 2"),
                ((2, 2, 3, 0, 0, 0, 0), "IHDR", "depth of 3"),
                ((2, 2, 4, 2, 0, 0, 0), "IHDR"), ((2, 2, 8, 1, 0, 0, 0), "IHDR", "type 1"),
                ((2, 2, 8, 0, 1, 0, 0), "IHDR"), ((2, 2, 8, 0, 0, 1, 0), "IHDR"),
                ((2, 2, 8, 0, 0, 0, 2), "IHDR"), ((2, 2, 8, 3, 0, 0, 0), "PLTE", "none"),
                ((20000, 20000, 8, 0, 0, 0, 0), "100 megapixels"),
                ((100_000, 1, 8, 0, 0, 0, 0), "65,535"),
                ((9000, 9000, 16, 6, 0, 0, 0), "IDAT", "cannot hold")]:
            self.broken(file(header(*values), self.IDAT, self.IEND), *words)

    def test_palette(self):
        ihdr, idat = header(2, 2, 8, PALETTE, 0, 0, 0), self.IDAT
        two = chunk(b"PLTE", b"abcdef")
        for chunks, word in [((two, idat, self.IEND), "2 colours of PLTE"),
                             ((chunk(b"PLTE", b"ab"), idat), "PLTE"),
                             ((two, two, idat), "after PLTE"),
                             ((chunk(b"IDAT"), two, idat), "after IDAT"),
                             ((two, chunk(b"IDAT"), chunk(b"aaAa"), idat), "in a row"),
                             ((chunk(b"tRNS", b"a"), two), "tRNS"),
                             ((two, chunk(b"tRNS", b"abc"), idat), "tRNS")]:
            self.broken(file(ihdr, *chunks), word)

    def test_bomb(self):
        packer = zlib.compressobj(9)
        packed = b"".join(packer.compress(bytes(10**6)) for _ in range(100)) + packer.flush()
        data = file(header(8, 8, 8, GREY, 0, 0, 0), chunk(b"IDAT", packed), self.IEND)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.broken(data, "more")
        self.assertLess(tracemalloc.get_traced_memory()[1], 10**7)


def any_png(side: int, depth: int, colour: int, interlaced: bool, rng) -> bytes:
    """A PNG file of random bytes, in scanlines of all filters."""
    one = ADAM7 if interlaced else ["1"]
    lines = b""
    for number in sorted(set("".join(one))):
        of_pass = [[x for x in range(side) if one[y % len(one)][x % len(one[0])] == number]
                   for y in range(len(one))]
        for y in range(side):
            columns = len(of_pass[y % len(one)])
            if columns:
                length = (columns * CHANNELS[colour] * depth + 7) // 8
                lines += bytes([int(rng.integers(5))]) + rng.bytes(length)
    extra = b""
    if colour == PALETTE:
        extra = chunk(b"PLTE", bytes(3 * 2**depth))
    elif colour in (GREY, RGB):
        extra = chunk(b"tRNS", bytes(2 * CHANNELS[colour]))
    return file(header(side, side, depth, colour, 0, 0, interlaced), extra,
                chunk(b"IDAT", zlib.compress(lines, 1)), chunk(b"IEND"))


class TestMemory(TestCase):
    def test_eight_bytes_a_pixel_over_the_result(self):
        """And no more, whatever the colours, the depth, the filters and the interlacing."""
        rng = np.random.default_rng(4)
        side = 400
        self.addCleanup(tracemalloc.stop)
        for (colour, depth), interlaced in [*zip(KINDS, itertools.repeat(False)),
                                            ((PALETTE, 4), True), ((RGBA, 16), True)]:
            data = any_png(side, depth, colour, interlaced, rng)
            tracemalloc.start()
            rgba = png.read_png(data)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            # The pixels that become RGBA together take half a megabyte at the most.
            self.assertLess(peak, rgba.nbytes + 8 * side**2 + 2**19, (colour, depth, interlaced))


class TestFuzzedPng(TestCase):
    def test_any_bytes(self):
        rng = np.random.default_rng(5)
        samples = []
        for colour, depth in KINDS:
            palette = b""
            if colour == PALETTE:
                palette = chunk(b"PLTE", rng.bytes(3 * 2**depth))
            pixels = rng.integers(0, 2**depth, (9, 6, CHANNELS[colour]))
            samples.append(slow_png(pixels, depth, colour, bool(depth % 3), rng, palette))
        fuzz(self, pictures.read_picture, *samples)
        fuzz(self, lambda data: pictures.read_picture(mend(data)), *samples)


def mend(data: bytes) -> bytes:
    """Put the checksums right, so that what lies behind them is tried."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        length, = struct.unpack_from(">I", out, at)
        if at + 12 + length > len(out):
            break
        struct.pack_into(">I", out, at + 8 + length, zlib.crc32(out[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(out)
