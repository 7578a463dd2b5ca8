"""What pictures are made of, against the web's rule for contrast."""
import unittest

from support import drawing


class TestColours(unittest.TestCase):
    def test_colours_are_told_from_the_paper(self):
        def luminance(colour):  # WCAG 2.1, relative luminance
            parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            return sum(c * weight for c, weight in zip(parts, (0.2126, 0.7152, 0.0722)))

        for mode in (1, 2):
            paper = luminance(drawing.COLOURS["paper"][mode])
            for name, least in (("ink", 7), ("soft", 4.5), ("wrong", 4.5), ("first", 3),
                                ("second", 3)):
                light, dark = sorted((paper, luminance(drawing.COLOURS[name][mode])), reverse=True)
                self.assertGreater((light + 0.05) / (dark + 0.05), least, (name, mode))
