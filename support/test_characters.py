"""Tests of support/characters.py."""
import numpy as np

from support import characters
from support.test_compositions import IMAGES, LABELS
from support.test_tools import TestCase


class TestCharacters(TestCase):
    def test_turning_is_mirroring_or_half_a_turn(self):
        rng = np.random.default_rng(0)
        for label, ways in characters.TURNED.items():
            digit = characters.cut_out(IMAGES[label])
            results = {"m": digit[:, ::-1], "u": digit[::-1, ::-1]}
            for _ in range(8):
                made = characters.turned(digit, label, rng)
                self.assertTrue(any((made == results[way]).all() for way in ways))
                self.assertFalse((made == digit).all())

    def test_a_stroke_against_distances(self):
        start, end = np.array([4.0, 5.0]), np.array([30.0, 20.0])
        picture = characters.drawn((40, 30), np.stack([start, end]), 6)
        pixels = np.stack(np.mgrid[:40, :30], -1).reshape(-1, 2)
        along = np.linspace(start, end, 2000)
        away = np.array([np.hypot(*(along - pixel).T).min() for pixel in pixels]).reshape(40, 30)
        self.assertTrue((picture[away < 2.4] == 1).all())
        self.assertTrue((picture[away > 3.6] == 0).all())

    def test_the_pen_is_lifted_at_nan(self):
        points = np.array([[5, 5], [5, 10], [np.nan, np.nan], [5, 30], [5, 35]])
        picture = characters.drawn((11, 41), points, 3)
        self.assertEqual((picture[5, 8], picture[5, 20], picture[5, 33]), (1, 0, 1))

    def test_a_curve_goes_through_its_points(self):
        points = np.array([[0, 0], [3, 8], [9, 2], [5, 5]], float)
        curve = characters.smooth_curve(points)
        for point in points:
            self.assertLess(np.hypot(*(curve - point).T).min(), 1e-9)

    def test_made_up_characters(self):
        rng = np.random.default_rng(0)
        for _ in range(20):
            seen = characters.made_up(IMAGES, LABELS, rng)
            self.assertEqual((seen.shape, seen.dtype), ((28, 28), np.uint8))
            y, x = np.nonzero(seen)
            self.assertLessEqual(max(np.ptp(y), np.ptp(x)) + 1, 20)
