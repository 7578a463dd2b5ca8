"""What the network saw: as text, as a sheet, with all candidates."""
import numpy as np

from support import ink, seen
from support.test_tools import TestCase, picture, written


class TestSeen(TestCase):
    def test_text_by_hand(self):
        digit = np.zeros((28, 28), np.uint8)
        digit[0, 0] = digit[1, 1] = digit[2, 2] = digit[3, 2] = 255  # upper, lower, both
        probabilities = [0.0] * 10
        probabilities[7], other = 0.9, 0.1
        lines = seen.as_text(digit, probabilities, list("0123456789"), other).split("\n")
        self.assertEqual(len(lines), 14)
        self.assertEqual(lines[0], "▀▄")
        self.assertTrue(lines[1].startswith("  █ "))
        bars = {line.split()[-3 if "█" in line[28:] else -2]: line.count("█")
                for line in lines[4:12]}
        self.assertEqual((bars["7"], bars["8"]), (27, 0))
        self.assertIn("other  10.0% ███", lines[11])

    def test_text_of_many_classes_has_the_ten_best(self):
        probabilities = [1 / 47] * 47
        probabilities[40] = 0.5
        text = seen.as_text(np.zeros((28, 28), np.uint8), probabilities,
                            [str(k) for k in range(47)], 0.0)
        self.assertIn("40  50.0%", text)
        self.assertEqual(text.count("%"), 11)

    def test_contact_sheet(self):
        pictures = [np.full((28, 28), i, np.uint8) for i in range(13)]
        sheet = seen.contact_sheet(pictures)
        self.assertEqual(sheet.shape, (56, 280))
        self.assertEqual((sheet[0, 279], sheet[28, 0], sheet[28, 28 * 3]), (9, 10, 0))
        self.assertEqual(seen.contact_sheet([]).shape, (28, 28))

    def test_steps_frame_the_chosen(self):
        rgb = picture(written("7", 100))[..., :3]
        candidates = ink.candidates(rgb)
        plain = seen.steps(rgb, candidates, [])
        framed = seen.steps(rgb, candidates, candidates[:1])
        start = plain.shape[1] - 8 - 32 * len(candidates)  # of the candidates, on the right
        tile = framed[:32, start : start + 32]
        np.testing.assert_array_equal(tile[2:-2, 2:-2], candidates[0].seen)
        self.assertTrue((tile[0] == 255).all() and (tile[:, -1] == 255).all())
        np.testing.assert_array_equal(plain[:, start + 32 :], framed[:, start + 32 :])
        y, x = np.nonzero(plain[:, :start] != framed[:, :start])
        box = candidates[0].box * ink.WORK / max(rgb.shape)
        np.testing.assert_allclose([y.min(), x.min(), y.max(), x.max()], box, atol=3)
