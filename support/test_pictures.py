"""Pictures of other formats; folders of pictures are in test_all.py, TestDataSet."""
import io
import unittest

import numpy as np

from support import pictures
from support.test_tools import TestCase

try:
    from PIL import Image  # no dependency: without it, all pictures are PNG
except ImportError:
    Image = None


class TestPictures(TestCase):
    def test_other_formats_are_named(self):
        for data, name in ((b"\xff\xd8\xff\xe0aaaaaaaa", "JPEG"), (b"BM00000000000", "BMP"),
                           (b"<html>", "HTML"), (b"", "empty"), (b"P5 1 1 255 ", "Netpbm"),
                           (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"), (b"\0\0\0\x18ftypheic", "HEIC"),
                           (b"<svg/>", "no pixels"), (b"<?xml ?><svg/>", "XML")):
            self.fails(lambda data=data: pictures.read_picture(data), name)

    def test_more_than_eight_bits(self):
        """White is 1, 255 or 65,535, whichever the type or the brightest pixel fits."""
        for values, dtype, expected in (([0, 257, 65535], np.uint16, [0, 1, 255]),
                                        ([0, 12850, 257], np.uint16, [0, 50, 1]),
                                        ([0, 12850, 257], ">u2", [0, 50, 1]),
                                        ([-3, 100, 255], np.int32, [0, 100, 255]),
                                        ([0, 25700, 51400], np.int32, [0, 100, 200]),
                                        ([0, 0.2, 1], np.float32, [0, 51, 255]),
                                        ([0, 1e6, 4e6], np.float32, [0, 64, 255])):
            found = pictures.eight_bits(np.array([values], dtype))
            self.assertEqual((found.dtype, found.tolist()), (np.uint8, [expected]))

    @unittest.skipIf(Image is None, "Pillow is not installed")
    def test_a_picture_of_sixteen_bits(self):
        data = io.BytesIO()
        Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(data, "TIFF")
        rgba = pictures.read_picture(data.getvalue())
        self.assertEqual(rgba.tolist(), [[[0, 0, 0, 255], [1, 1, 1, 255], [255, 255, 255, 255]]])

    def test_luminance(self):
        """Published values (ITU-R BT.601): white 255, red 76.2, green 149.7, blue 29.1."""
        rgba = np.array([[[255, 255, 255, 255], [255, 0, 0, 255], [0, 255, 0, 0],
                          [0, 0, 255, 255]]], np.uint8)
        np.testing.assert_allclose(pictures.luminance(rgba), [[255, 76.245, 149.685, 29.07]],
                                   rtol=1e-6)
