"""python -m unittest support.test_ink     paper, ink, connected components, the digit as drawn"""
import unittest

import numpy as np

from support import ink, mnist_style


def bar(height: int, width: int, shape=(80, 80), at=(20, 30)) -> np.ndarray:
    """(H, W) bool: a filled rectangle."""
    mask = np.zeros(shape, bool)
    mask[at[0] : at[0] + height, at[1] : at[1] + width] = True
    return mask


def flood_fill(mask: np.ndarray) -> np.ndarray:
    """The oracle of `components`: pixel by pixel, in reading order."""
    label = np.full(mask.shape, -1)
    count = 0
    for start in zip(*np.nonzero(mask)):
        if label[start] >= 0:
            continue
        todo = [start]
        label[start] = count
        while todo:
            y, x = todo.pop()
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                if inside and mask[near] and label[near] < 0:
                    label[near] = count
                    todo.append(near)
        count += 1
    return label


class TestComponents(unittest.TestCase):
    def test_against_flood_fill(self):
        rng = np.random.default_rng(0)
        for _ in range(100):
            mask = rng.random(rng.integers(1, 24, 2)) < rng.random()
            label, boxes = ink.components(mask)
            np.testing.assert_array_equal(label, flood_fill(mask))
            for number, box in enumerate(boxes):
                y, x = np.nonzero(label == number)
                self.assertEqual(box.tolist(), [y.min(), x.min(), y.max() + 1, x.max() + 1])

    def test_a_snake_is_one(self):
        mask = np.zeros((41, 30), bool)
        mask[::2] = True
        mask[1::4, -1] = True  # joined at the right, then at the left
        mask[3::4, 0] = True
        self.assertEqual(len(ink.components(mask)[1]), 1)
        mask[21] = False
        self.assertEqual(len(ink.components(mask)[1]), 2)

    def test_nothing(self):
        label, boxes = ink.components(np.zeros((5, 7), bool))
        self.assertEqual(boxes.shape, (0, 4))
        self.assertTrue((label == -1).all())


class TestGrey(unittest.TestCase):
    def test_what_a_coarse_look_at_a_large_picture_misses(self):
        """Dark ink in every second row of the left half, so a quarter is visible: on white."""
        rgba = np.zeros((1200, 1200, 4), np.uint8)
        rgba[1::2, :600, 3] = 255
        rgba[1::2, :300, :3] = 100
        rgb = ink.composite(rgba)
        self.assertEqual(rgb[0, 0].tolist(), [255, 255, 255])
        self.assertEqual(rgb[1, [0, 300, 600]].tolist(), [[100] * 3, [0] * 3, [255] * 3])

    def test_resampling_keeps_the_mean(self):
        rng = np.random.default_rng(0)
        grey = rng.random((60, 40)).astype(np.float32)
        small = mnist_style.resize(grey, 20)  # a whole number of pixels becomes one
        blocks = grey.reshape(20, 3, -1).mean(1)
        self.assertEqual(small.shape, (20, 13))
        self.assertAlmostEqual(small.mean(), grey.mean(), places=2)
        np.testing.assert_allclose(mnist_style.resampling(60, 20) @ grey, blocks, rtol=1e-5)

    def test_paper_under_strokes(self):
        light = np.linspace(120, 220, 200, dtype=np.float32)[:, None] * np.ones(200, np.float32)
        page = light.copy()
        page[50:150, 95:105] = 30  # a stroke
        self.assertLess(np.abs(ink.paper_under(page) - light)[10:-10].max(), 20)

    def test_otsu_against_all_thresholds(self):
        rng = np.random.default_rng(0)
        values = np.append(rng.normal(0.3, 0.05, 3000), rng.normal(0.7, 0.08, 500)).clip(0, 1)

        def within(threshold):
            parts = values[values <= threshold], values[values > threshold]
            return sum(len(part) * part.var() for part in parts)
        best = min(np.linspace(0.2, 0.8, 200), key=within)
        self.assertAlmostEqual(ink.otsu(values), best, delta=0.02)


class TestDrawing(unittest.TestCase):
    def test_stroke_width_of_a_bar(self):
        for width in (4, 9, 16):
            measured = mnist_style.stroke_width(bar(70, width, (90, 60), (10, 20)))
            self.assertAlmostEqual(measured, width * 70 / (70 + width), delta=0.12 * width)

    def test_thicker_against_distances(self):
        rng = np.random.default_rng(0)
        for radius in (1, 2.5, 6.2):
            inside = rng.random((30, 20)) < 0.02
            y, x = np.nonzero(inside)
            grid = np.mgrid[:30, :20][..., None]
            away = np.hypot(grid[0] - y, grid[1] - x).min(-1)
            np.testing.assert_array_equal(mnist_style.thicker(inside, radius), away <= radius)

    def test_thin_and_thick_strokes_become_mnist_s(self):
        for width in (2, 6, 14):
            drawing = mnist_style.draw(bar(76, width, (76, width), (0, 0)).astype(np.float32))
            self.assertEqual(drawing.shape[0], mnist_style.BOX)
            self.assertTrue(1.5 <= drawing[10].sum() <= 4, drawing[10].sum())

    def test_the_centre_of_mass_is_in_the_middle(self):
        drawing = np.zeros((20, 14))
        drawing[:, :4] = 1
        seen = mnist_style.place(drawing).astype(float)
        y, x = np.mgrid[:28, :28]
        self.assertAlmostEqual((seen * x).sum() / seen.sum(), 13.5, delta=0.5)
        self.assertAlmostEqual((seen * y).sum() / seen.sum(), 13.5, delta=0.5)


class TestCandidates(unittest.TestCase):
    def near(self, found, box):
        """Whether a candidate has this box, give or take two pixels."""
        return any(np.abs(candidate.box - box).max() <= 2 for candidate in found)

    def test_dark_and_light_ink(self):
        for paper, pen in ((255, 0), (0, 255), (200, 120)):
            rgb = np.full((200, 160, 3), paper, np.uint8)
            rgb[40:120, 60:75] = pen
            self.assertTrue(self.near(ink.candidates(rgb), [40, 60, 120, 75]))

    def test_uneven_light(self):
        light = np.linspace(0.4, 1, 300)[:, None, None] * np.ones((300, 200, 3))
        page = 230 * light
        page[30:90, 20:30] *= 0.5
        page[200:270, 120:130] *= 0.5
        found = ink.candidates(page.astype(np.uint8))
        self.assertTrue(self.near(found, [30, 20, 90, 30]))
        self.assertTrue(self.near(found, [200, 120, 270, 130]))

    def test_half_ink_cut_out_closely(self):
        """A grainy ring that fills its picture: the grain of the paper, not the ink, is noise."""
        rng = np.random.default_rng(0)
        y, x = np.mgrid[-60:61, -60:61]
        away = np.hypot(y, x)
        ring = (33 < away) & (away < 58)
        self.assertTrue(0.45 < ring.mean() < 0.5)
        grey = (np.where(ring, 60, 210) + rng.normal(0, 10, ring.shape)).clip(0, 255)
        found = ink.candidates(np.dstack([grey.astype(np.uint8)] * 3))
        dark = [candidate for candidate in found if candidate.dark]
        self.assertTrue(self.near(dark, [3, 3, 118, 118]))

    def test_noise_alone_is_no_ink(self):
        rng = np.random.default_rng(0)
        for noise in (1, 5, 20):
            grey = (200 + rng.normal(0, noise, (150, 150))).clip(0, 255)
            self.assertEqual(ink.candidates(np.dstack([grey.astype(np.uint8)] * 3)), [])

    def test_the_gap_between_two_strokes_is_no_light_ink(self):
        rgb = np.full((200, 200, 3), 255, np.uint8)
        rgb[60:140, 80:88] = rgb[60:140, 96:104] = 0
        rgb[60:66, 80:104] = 0
        found = ink.candidates(rgb)
        self.assertFalse(self.near([each for each in found if not each.dark], [66, 88, 140, 96]))
        self.assertTrue(self.near(found, [60, 80, 140, 104]))

    def test_enlarged_pixels_are_small_again(self):
        rng = np.random.default_rng(0)
        small = rng.integers(0, 256, (14, 9)).astype(np.uint8)
        rgb = np.kron(np.dstack([small] * 3), np.ones((6, 6, 1), np.uint8))
        np.testing.assert_allclose(ink.few_pixels(rgb), small, atol=0.01)
        self.assertEqual(len(ink.whole(rgb)), 2)
        large = rng.integers(0, 9, (50, 60, 3)).astype(np.uint8)
        self.assertIsNone(ink.few_pixels(large))
        self.assertEqual(ink.whole(large), [])


if __name__ == "__main__":
    unittest.main()
