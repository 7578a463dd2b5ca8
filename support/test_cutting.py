"""Candidates taken apart, and which of their parts are kept."""
import unittest

from support import cutting, ink
from support.test_ink import bar
from support.test_tools import judged

import numpy as np


class TestParts(unittest.TestCase):
    def test_cut_between_two_that_touch(self):
        mask = bar(60, 12, (80, 100), (10, 10)) | bar(60, 12, (80, 100), (10, 50))
        mask |= bar(4, 40, (80, 100), (40, 15))  # a thin bridge
        rgb = np.dstack([np.where(mask, 0, 255)] * 3).astype(np.uint8)
        whole = [candidate for candidate in ink.candidates(rgb) if not candidate.cut_off]
        joined = max(whole, key=lambda candidate: candidate.width)
        parts = cutting.cut(joined)
        self.assertTrue(any(part.columns[0] == 0 and 10 <= part.columns[1] <= 50 for part in parts))
        ends = {part.columns[1] for part in parts}
        self.assertIn(joined.strength.shape[1], ends)

    def test_paler_lines_come_off(self):
        """And with them what they ran into: the border of the picture."""
        strength = np.zeros((40, 60), np.float32)
        strength[18:20] = 0.6
        strength[5:35, 20:32] = 1
        # The line is above the edge, 0.5, but below what is certainly ink, 0.83.
        at_border = np.array([False, True, False, True])
        candidate = ink.Candidate(np.zeros((28, 28), np.uint8), np.array([0, 0, 40, 60]), at_border,
                                  True, strength)
        found = cutting.strongest(candidate)
        self.assertEqual([part.box.tolist() for part in found], [[5, 20, 35, 32]])
        self.assertFalse(found[0].cut_off)
        candidate.strength[:, :20] = candidate.strength[:, 26:] = 0  # an upright stroke is left
        self.assertEqual(cutting.strongest(candidate), [])

    def test_only_the_outer_pieces_of_what_is_cut_off_are_cut_off(self):
        rgb = np.full((100, 100, 3), 255, np.uint8)
        rgb[40:70, 30:100] = 0
        rgb[40:66, 60:64] = 255  # nearly two
        cut_off = [each for each in ink.candidates(rgb) if each.dark and each.at_border[3]]
        pieces = cutting.cut(cut_off[0])
        self.assertTrue(pieces)
        width = cut_off[0].strength.shape[1]
        for piece in pieces:
            self.assertEqual(piece.cut_off, piece.columns[1] == width)


class TestHoles(unittest.TestCase):
    def test_a_hole_is_surrounded_and_no_speck(self):
        strength = np.ones((40, 60), np.float32)
        strength[10:25, 20:24] = strength[5:7, 50:52] = strength[30:, 40:] = 0
        candidate = judged(0, 0.1, [100, 200, 180, 320])  # two pixels of the picture for each
        candidate.strength = strength
        self.assertEqual([box.tolist() for box in cutting.holes(candidate)],
                         [[120, 240, 150, 248]])
        candidate.strength = np.ones((9, 9), np.float32)
        self.assertEqual(cutting.holes(candidate), [])


class TestWhichPartsAreKept(unittest.TestCase):
    """Candidates made up by hand, as `judged` makes them."""

    def test_the_cut_whose_worst_piece_is_best(self):
        whole = judged(0, 0.1, [0, 0, 9, 9])

        def piece(digit, probability, start, end):
            made = judged(digit, probability, [0, start, 9, end])
            made.part_of, made.columns = whole, (start, end)
            return made

        good = [piece(1, 0.97, 0, 4), piece(7, 0.96, 4, 9)]
        poor = [piece(4, 0.99, 0, 6), piece(0, 0.40, 6, 9)]
        self.assertEqual(cutting.best_cut(poor + good), good)
        self.assertEqual(cutting.best_cut(poor), [])
        self.assertEqual(cutting.best_cut(good[:1]), [])  # it covers only a half
        alone = judged(1, 0.99, [10, 200, 50, 208])
        self.assertEqual(cutting.without_spare_pieces([*good, *poor, alone]), [alone, *good])


if __name__ == "__main__":
    unittest.main()
