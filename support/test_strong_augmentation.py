"""Tests of support/strong_augmentation.py."""
from support.strong_augmentation import random_coarse, stretch
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
