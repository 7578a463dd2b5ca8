"""Tests of support/forms.py."""
from support.forms import FORMS, LETTERS, OTHER, draw_form, with_forms
from support.test_tools import TestCase

import numpy as np
import torch


class TestForms(TestCase):
    def generator(self, seed=0):
        return torch.Generator().manual_seed(seed)

    def test_drawn_forms_are_as_large_and_placed_as_mnist(self):
        for label, strokes in [*FORMS, *[(OTHER, strokes) for strokes in LETTERS]]:
            images = draw_form(strokes, 20, self.generator()).numpy()
            self.assertEqual((images.shape, images.dtype), ((20, 28, 28), np.uint8))
            for ink in images:
                y, x = np.nonzero(ink > 100)
                self.assertTrue(18 <= max(np.ptp(y), np.ptp(x)) + 1 <= 21, label)
                for axis in (0, 1):
                    self.assertLess(abs(ink.sum(axis) @ (np.arange(28) - 13.5)) / ink.sum(), 1.5)

    def test_forms_are_added_with_their_labels(self):
        images, labels = torch.zeros(7, 28, 28, dtype=torch.uint8), torch.arange(7)
        more, theirs = with_forms(images, labels, 3, self.generator())
        self.assertEqual(len(more), 7 + 3 * (len(FORMS) + len(LETTERS)))
        known = [digit for digit, _ in FORMS] + [OTHER] * len(LETTERS)
        self.assertEqual(theirs[7:].tolist(), np.repeat(known, 3).tolist())
        self.assertTrue((more[7:].amax((1, 2)) > 200).all() and not more[:7].any())

    def test_the_bend_of_a_drawn_form(self):
        """All the ink of a T lies on its two strokes, wherever they were moved to: the upper fifth
        holds the bar, which is wider than the stem beneath."""
        for ink in draw_form([[(0, 0), (10, 0)], [(5, 0), (5, 10)]], 50, self.generator()).numpy():
            rows = np.flatnonzero((ink > 100).any(1))
            widths = [np.ptp(np.flatnonzero(ink[y] > 100)) + 1 for y in rows]
            self.assertGreater(max(widths[:8]), 2 * np.median(widths[-8:]))
            self.assertLess(np.median(widths[-8:]), 6)
