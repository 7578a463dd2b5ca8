"""Tests of support/strong_augmentation.py."""
from support.strong_augmentation import FORMS, draw_form, random_coarse, stretch, with_forms
from support.test_tools import TestCase
from train import apply_affine

import numpy as np
import torch


class TestStrongAugmentation(TestCase):
    def generator(self, seed=0):
        return torch.Generator().manual_seed(seed)

    def test_stretched_to_a_square(self):
        """A bar 7 pixels wide and 20 high ends up to 20 wide; its height, and half of all, stay.
        A thinner one grows by the same factor at most."""
        images = torch.zeros(400, 28, 28, dtype=torch.uint8)
        images[:, 4:24, 10:17] = 200
        same = torch.eye(2, 3).expand(400, 2, 3)
        wide = apply_affine(images, stretch(images, same, 1, self.generator())) > 100
        self.assertTrue((wide.any(2).sum(1) == 20).all())
        widths = wide.any(1).sum(1)
        self.assertTrue(150 < (widths == 7).sum() < 250)
        self.assertTrue(18 <= widths.max() <= 20 and widths.min() == 7)
        images[:, :, 12:] = 0
        thin = apply_affine(images, stretch(images, same, 1, self.generator())) > 100
        self.assertLessEqual(thin.any(1).sum(1).max(), 6)

    def test_coarse(self):
        """A step through 14 pixels, by hand: means of pairs, then halfway between their centres."""
        images = torch.zeros(200, 28, 28)
        images[:, :, 13:] = 100
        seen = random_coarse(images, 1, self.generator())
        few = np.repeat([0, 50, 100], [6, 1, 7])
        line = np.interp(np.arange(28) / 2 - 0.25, np.arange(14), few)
        found = (seen - torch.from_numpy(line)).abs().amax((1, 2)) < 0.01
        self.assertTrue(60 < found.sum() < 140)  # the others through 10 pixels
        self.assertTrue(torch.equal(random_coarse(images, 0, self.generator()), images))

    def test_drawn_forms_are_as_large_and_placed_as_mnist(self):
        for digit, strokes in FORMS:
            images = draw_form(strokes, 20, self.generator()).numpy()
            self.assertEqual((images.shape, images.dtype), ((20, 28, 28), np.uint8))
            for ink in images:
                y, x = np.nonzero(ink > 100)
                self.assertTrue(18 <= max(np.ptp(y), np.ptp(x)) + 1 <= 21, digit)
                for axis in (0, 1):
                    self.assertLess(abs(ink.sum(axis) @ (np.arange(28) - 13.5)) / ink.sum(), 1.5)

    def test_forms_are_added_with_their_labels(self):
        images, labels = torch.zeros(7, 28, 28, dtype=torch.uint8), torch.arange(7)
        more, theirs = with_forms(images, labels, 3, self.generator())
        self.assertEqual((len(more), len(theirs)), (7 + 3 * len(FORMS),) * 2)
        for i, (digit, _) in enumerate(FORMS):
            self.assertEqual(theirs[7 + 3 * i : 10 + 3 * i].tolist(), [digit] * 3)
        self.assertTrue((more[7:].amax((1, 2)) > 200).all() and not more[:7].any())

    def test_the_bend_of_a_drawn_form(self):
        """All the ink of a T lies on its two strokes, wherever they were moved to: the upper fifth
        holds the bar, which is wider than the stem beneath."""
        for ink in draw_form([[(0, 0), (10, 0)], [(5, 0), (5, 10)]], 50, self.generator()).numpy():
            rows = np.flatnonzero((ink > 100).any(1))
            widths = [np.ptp(np.flatnonzero(ink[y] > 100)) + 1 for y in rows]
            self.assertGreater(max(widths[:8]), 2 * np.median(widths[-8:]))
            self.assertLess(np.median(widths[-8:]), 6)
