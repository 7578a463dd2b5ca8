"""Pictures composed of digits, and the examples that are made of them: their labels by hand."""
from unittest import mock

import numpy as np
import torch

from support import compositions, ink
from support.characters import cut_out
from support.mnist_style import draw, place
from support.test_tools import TestCase, toy_images, written_digit

LABELS = np.arange(40) % 10
IMAGES = toy_images(LABELS)


def compose_by_hand(*parts, margin=20):
    """What `compose` returns, for parts side by side of which each is a digit (0 to 9), or "frame":
    dark on white."""
    drawings = []
    for part in parts:
        if part == "frame":
            drawing = np.zeros((90, 90), np.float32)
            drawing[:6] = drawing[-6:] = drawing[:, :6] = drawing[:, -6:] = 1
        else:
            drawing = written_digit(part, 80, 8)
        drawings.append(drawing)
    high = max(map(len, drawings))
    page = np.zeros((high + 2 * margin, 0), np.float32)
    truth = []
    for part, drawing in zip(parts, drawings):
        page = np.pad(page, [(0, 0), (0, margin)])
        place = np.zeros((len(page), drawing.shape[1]), np.float32)
        place[margin : margin + len(drawing)] = drawing
        if part != "frame":
            rows = np.flatnonzero(drawing.any(1))
            left = page.shape[1]
            box = [margin + rows[0], left, margin + rows[-1] + 1, left + drawing.shape[1]]
            truth.append((part, np.array(box), drawing[rows[0] : rows[-1] + 1]))
        page = np.hstack([page, place])
    page = np.pad(page, [(0, 0), (0, margin)])
    grey = np.rint(255 * (1 - page)).astype(np.uint8)
    return np.dstack([grey] * 3), truth


class TestExamples(TestCase):
    def examples(self, *parts, other=10):
        """The examples of a picture composed by hand, without the made-up characters."""
        picture = compose_by_hand(*parts)
        with mock.patch.object(compositions, "compose", lambda *_: picture), \
                mock.patch.object(compositions, "MADE_UP", 0):
            return compositions.examples(IMAGES, LABELS, [0], 0, other)

    def test_labels_by_hand(self):
        plain = [place(draw(written_digit(digit, 80, 8))) for digit in range(10)]
        for parts in ([5], [2, 0, 2, 5], [3, "frame"], ["frame"]):
            seen, labels = self.examples(*parts)
            digits = [part for part in parts if part != "frame"]
            self.assertCountEqual(labels[labels < 10], digits)  # each of them once
            for image, label in zip(seen, labels):
                if label < 10:
                    likeness = [compositions.correlation(image, drawing) for drawing in plain]
                    self.assertEqual(np.argmax(likeness), label)
        self.assertIn(10, self.examples("frame")[1])
        self.assertIn(7, self.examples("frame", other=7)[1])

    def test_a_part_of_a_digit_is_neither_digit_nor_other(self):
        _, truth = compose_by_hand(8)
        (_, box, drawing), = truth
        whole = ink.Candidate(place(draw(drawing)), box, False, True, drawing)
        self.assertEqual(compositions.digit_of(whole, truth), 0)
        half = ink.Candidate(place(draw(drawing[: len(drawing) // 2])),
                             np.append(box[:2], [(box[0] + box[2]) / 2, box[3]]), False, True,
                             drawing)
        self.assertIsNone(compositions.digit_of(half, truth))
        far = ink.Candidate(whole.seen, box + 1000, False, True, drawing)
        self.assertEqual(compositions.digit_of(far, truth), -1)
        unlike = ink.Candidate(255 - whole.seen, box, False, True, drawing)
        self.assertEqual(compositions.digit_of(unlike, truth), -1)

    def test_seed_and_number_decide(self):
        """Each picture by itself, and in any order, gives the same examples."""
        seen, labels = compositions.examples(IMAGES, LABELS, [3, 5], 1)
        self.assertEqual((seen.dtype, seen.shape[1:], labels.dtype),
                         (np.uint8, (28, 28), np.int64))
        first, second = (compositions.examples(IMAGES, LABELS, [number], 1) for number in (3, 5))
        np.testing.assert_array_equal(seen, np.concatenate([first[0], second[0]]))
        np.testing.assert_array_equal(labels, np.concatenate([first[1], second[1]]))
        again = compositions.examples(IMAGES, LABELS, [3, 5], 2)
        self.assertFalse(seen.shape == again[0].shape and (seen == again[0]).all())
        self.assertTrue(set(labels) <= set(range(11)))

    def test_none(self):
        seen, labels = compositions.examples(IMAGES, LABELS, [], 0)
        self.assertEqual((seen.shape, labels.shape), ((0, 28, 28), (0,)))

    def test_the_digits_come_first_and_stay(self):
        images, labels = torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
        more, known = compositions.with_others(images, labels, 2, seed=0)
        self.assertTrue(torch.equal(more[:40], images) and torch.equal(known[:40], labels))
        seen, added = compositions.examples(IMAGES, LABELS, range(2), 0)
        np.testing.assert_array_equal(more[40:].numpy(), seen)
        np.testing.assert_array_equal(known[40:].numpy(), added)


class TestCompose(TestCase):
    def test_the_boxes_hold_the_digits(self):
        count = 0
        for seed in range(20):
            plain = mock.patch.object(compositions, "photographed", lambda drawing, *_: np.dstack(
                [np.rint(255 * drawing).astype(np.uint8)] * 3))
            with plain:
                rgb, truth = compositions.compose(IMAGES, LABELS, np.random.default_rng(seed))
            for label, box, digit in truth:
                count += 1
                self.assertIn(label, range(10))
                top, left, bottom, right = box.round().astype(int)
                self.assertTrue(0 <= top < bottom <= rgb.shape[0])
                self.assertTrue(0 <= left < right <= rgb.shape[1])
                self.assertGreater(rgb[top:bottom, left:right].max(), 200)
        self.assertGreater(count, 10)

    def test_pictures_are_of_all_kinds(self):
        sizes = set()
        for seed in range(20):
            rgb, _ = compositions.compose(IMAGES, LABELS, np.random.default_rng([9, seed]))
            self.assertEqual((rgb.dtype, rgb.ndim, rgb.shape[2]), (np.uint8, 3, 3))
            sizes.add(max(rgb.shape))
        self.assertLess(min(sizes), ink.SMALL)
        self.assertGreater(max(sizes), 100)

    def test_turned_digits_and_marks_are_never_labelled_digits(self):
        """As many labels as digits that were written without being turned before."""
        every_turned = 0
        for seed in range(120):
            with mock.patch.object(compositions, "turned", wraps=compositions.turned) as turned, \
                    mock.patch.object(compositions, "written",
                                      wraps=compositions.written) as as_written:
                _, truth = compositions.compose(IMAGES, LABELS, np.random.default_rng(seed))
            self.assertEqual(len(truth), as_written.call_count - turned.call_count)
            every_turned += turned.call_count
        self.assertGreater(every_turned, 3)
        blank = np.full((60, 60, 3), 255, np.uint8)
        with mock.patch.object(compositions, "compose", lambda *_: (blank, [])):
            _, labels = compositions.examples(IMAGES, LABELS, range(5), 0)
        self.assertEqual(labels.tolist(), [10] * 5 * compositions.MADE_UP)


class TestParts(TestCase):
    def test_a_digit_is_written_as_high_as_asked(self):
        digit = cut_out(IMAGES[3])
        self.assertAlmostEqual(digit.max(), IMAGES[3].max() / 255, places=6)
        for height in (16, 60, 110):
            rows = np.flatnonzero(
                (compositions.written(digit, height, np.random.default_rng(0)) > 0.5).any(1))
            self.assertAlmostEqual(np.ptp(rows) + 1, height, delta=0.12 * height + 2)

    def test_overlap_by_hand(self):
        for box, share in (([0, 0, 10, 10], 1), ([0, 5, 10, 15], 50 / 150), ([0, 10, 10, 20], 0),
                           ([2, 2, 4, 4], 0.04)):
            found = compositions.intersection_over_union(np.array([0, 0, 10, 10]), np.array(box))
            self.assertAlmostEqual(found, share)
