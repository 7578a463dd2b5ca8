"""Tests of infer.py: pictures drawn for it, and it as a program."""
import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import evaluate
import idx_data
import infer
import model
from support import ink, png, seen
from support.answers import UNSURE, Answer, Reading, batches
from support.errors import FormatError, UsageError
from support.ink import components
from support.mnist_style import resize
from support.pictures import opaque
from support.test_tools import HERE, TestCase, picture, written

import numpy as np
import torch


def apart(a, b):
    """How different two (28, 28) digits are: 0 the same, 1 nothing in common."""
    a, b = a.astype(float), b.astype(float)
    return abs(a - b).sum() / max(a.sum(), b.sum())


def read(rgba: np.ndarray, single: bool = False) -> str:
    """What pretrained.pt reads, rows separated by /."""
    net = infer.own_finder()
    rows, = infer.read_pictures(net, net, [ink.composite(rgba)], single)
    return "/".join("".join(str(reading.digit) for reading in row) for row in rows)


class TestPictureToNumber(TestCase):
    """Numbers drawn with a pen, in pictures of many kinds, are read by pretrained.pt."""

    def test_a_number(self):
        for text in ("2026", "53984", "7"):
            self.assertEqual(read(picture(written(text))), text)
            self.assertEqual(read(picture(written(text), 0, 255)), text)

    def test_rows(self):
        self.assertEqual(read(picture(written("3845\n269"))), "3845/269")

    def test_slanted(self):
        for slope in (-0.3, 0.3):
            self.assertEqual(read(picture(written("20265", slope=slope))), "20265")

    def test_touching(self):
        drawing = written("23", gap=-4)
        self.assertEqual(len(components(drawing > 0.5)[1]), 1)
        self.assertEqual(read(picture(drawing)), "23")

    def test_single_reads_the_largest(self):
        small, large = written("3", 40), written("5", 120)
        page = np.zeros((len(large), small.shape[1] + large.shape[1]))
        page[: len(small), : small.shape[1]] = small
        page[:, small.shape[1] :] = large
        self.assertEqual(read(picture(page), single=True), "5")
        self.assertEqual(len(read(picture(written("2026")), single=True)), 1)

    def test_the_boxes_lie_on_the_digits(self):
        rgba = picture(written("25", margin=40))
        readings = infer.read_digits(infer.own_finder(), rgba)
        self.assertEqual([reading.digit for reading in readings], [2, 5])
        label, boxes = components(written("25", margin=40) > 0.5)
        for reading, box in zip(readings, sorted(boxes, key=lambda box: box[1])):
            np.testing.assert_allclose(reading.box, box, atol=2)

    def test_size_and_pen_do_not_matter(self):
        for height, pen in ((16, 2), (40, 8), (200, 6), (300, 50), (900, 20)):
            self.assertEqual(read(picture(written("5", height, pen, margin=height))), "5")

    def test_low_contrast_and_colours(self):
        self.assertEqual(read(picture(written("58"), paper=200, dark=150)), "58")
        yellow = picture(written("58"))
        yellow[written("58") > 0.5, :3] = 255, 255, 0
        self.assertEqual(read(yellow), "58")

    def test_transparency(self):
        for grey in (0, 255, 60, 200):
            drawing = written("58")
            rgba = np.zeros(drawing.shape + (4,), np.uint8)
            rgba[..., 3] = 255 * drawing
            rgba[drawing > 0, :3] = grey
            self.assertEqual(read(rgba), "58")
        rgba = picture(written("58"))
        rgba[:9, :9] = rgba[-9:, -9:] = 0  # paper with transparent corners
        self.assertEqual(read(rgba), "58")

    def test_uneven_light_shadow_and_noise(self):
        drawing = written("58", 120, 12, margin=60)
        height, width = drawing.shape
        y, x = np.mgrid[:height, :width] / height
        noise = np.random.default_rng(0).standard_normal(drawing.shape) * 4
        for light in (120 + 60 * x, 200 - 60 * ((x - 0.5) ** 2 + (y - 0.5) ** 2),
                      np.where(x + 0.3 * y > 0.6, 210, 120)):
            page = (light * (1 - 0.6 * drawing) + noise).clip(0, 255)
            self.assertEqual(read(picture(1 - page / 255)), "58")

    def test_a_frame_drawn_around(self):
        drawing = written("5", 120, 8, margin=60)
        for row in (20, -24):
            drawing[row : row + 4, 20:-20] = 1
            drawing[20:-20, row : row + 4] = 1
        for rgba in (picture(drawing), picture(drawing, 0, 255)):
            self.assertEqual(read(rgba), "5")

    def test_a_circle_drawn_around(self):
        drawing = written("5", 100, 8, margin=80)
        height, width = drawing.shape
        y, x = np.mgrid[:height, :width]
        ring = abs(np.hypot(y - height / 2, x - width / 2) - 95) < 3
        self.assertEqual(read(picture(np.maximum(drawing, ring))), "5")

    def test_a_sheet_on_a_table(self):
        drawing = written("58", 120, 10, margin=60)
        for margins in ((0, 0, 0, 50), (40, 40, 40, 40)):
            top, bottom, left, right = margins
            light = np.pad(220 * (1 - 0.7 * drawing), [(top, bottom), (left, right)],
                           constant_values=70)
            light += np.random.default_rng(0).normal(0, 2, light.shape)
            self.assertEqual(read(picture(1 - light / 255)), "58")

    def test_pencil_on_a_sheet_aslant_on_a_dark_table(self):
        """Beside the table it is too pale to be ink, but a hole in the sheet."""
        drawing = np.pad(written("5", 120, 8, margin=60), 250)
        y, x = np.mgrid[: drawing.shape[0], : drawing.shape[1]]
        y, x = y - drawing.shape[0] / 2, x - drawing.shape[1] / 2
        sheet = (abs(0.96 * x + 0.28 * y) < 130) & (abs(0.96 * y - 0.28 * x) < 160)
        rng = np.random.default_rng(0)
        table = 45 + rng.normal(0, 5, (len(drawing), 1))
        light = np.where(sheet, 190 - 90 * drawing, table) + rng.normal(0, 2, drawing.shape)
        self.assertEqual(read(picture(1 - light / 255)), "5")

    def test_ruled_and_squared_paper(self):
        drawing = written("58", 120, 12, margin=60)
        lines = np.zeros_like(drawing)
        lines[10::36] = 0.3
        self.assertEqual(read(picture(np.maximum(drawing, lines))), "58")
        lines[:, 10::36] = 0.3
        self.assertEqual(read(picture(np.maximum(drawing, lines))), "58")

    def test_digits_on_a_line_from_border_to_border(self):
        drawing = written("3230")
        lines = np.zeros_like(drawing)
        for level, pale in ((70, 0.4), (90, 0.6)):
            lines[:] = 0
            lines[level : level + 3] = pale
            self.assertEqual(read(picture(np.maximum(drawing, lines))), "3230")

    def test_cut_out_closely(self):
        drawing = written("5", 120, 12)
        rows, columns = (np.flatnonzero((drawing > 0.5).any(axis)) for axis in (1, 0))
        drawing = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for rgba in (picture(drawing), picture(drawing, 0, 255)):
            self.assertEqual(read(rgba), "5")

    def test_few_pixels(self):
        small = resize(written("5", 120, 16), 28)
        self.assertEqual(read(picture(small)), "5")
        self.assertEqual(read(picture(np.kron(small, np.ones((7, 7))))), "5")

    def test_specks_and_detached_strokes(self):
        drawing = written("5", 120, 12)
        drawing[4:7, 4:7] = 1
        rows = np.flatnonzero((drawing[20:] > 0.5).any(1)) + 20
        drawing[rows[0] + 16 : rows[0] + 19] = 0  # the bar is cut off from the belly
        self.assertEqual(read(picture(drawing)), "5")

    def test_nothing_to_read(self):
        random = np.random.default_rng(0)
        y, x = np.mgrid[:200, :200]
        shadow = np.where(x + y > 230, 120, 200)
        for grey in (np.zeros((50, 50)), np.full((1, 1), 255), random.normal(128, 10, (200, 200)),
                     80 + 0.7 * x, shadow, np.where(y % 30 < 2, 100, 240)):
            grey = grey.astype(np.uint8)
            self.assertEqual(read(opaque(grey)), "")
        with self.assertRaisesRegex(FormatError, "no digit found"):
            infer.mnist_style(opaque(np.zeros((50, 50), np.uint8)))
        with self.assertRaisesRegex(FormatError, "no ink found"):
            infer.mnist_style(np.zeros((30, 30, 4), np.uint8))  # all of it is transparent

    def test_mnist_style_has_mnist_s_geometry(self):
        digit = infer.mnist_style(picture(written("7", 150)))
        self.assertEqual((digit.shape, digit.dtype), ((28, 28), np.uint8))
        y, x = np.nonzero(digit)
        self.assertEqual(max(np.ptp(y), np.ptp(x)) + 1, 20)
        middle = np.arange(28) + 0.5
        for axis in (0, 1):
            self.assertLess(abs(middle @ digit.sum(1 - axis) / digit.sum() - 14), 0.51)
        self.assertGreater(digit.max(), 240)
        inverted = infer.mnist_style(picture(written("7", 150), 0, 255))
        self.assertLess(apart(inverted, digit), 0.05)

    def test_any_pixels_give_numbers_or_nothing(self):
        random = np.random.default_rng(0)
        for shape in ((1, 1), (1, 40), (2, 2), (3, 400), (400, 3), (28, 28), (9, 700)):
            for top in (2, 256):
                rgba = random.integers(0, top, shape + (4,), np.uint8) * np.uint8(255 // (top - 1))
                with contextlib.suppress(FormatError):
                    read(rgba)
        for seed in range(10):  # like a sheet of paper far longer than wide
            noise = np.random.default_rng(seed).random((362, 11))
            read(picture(np.pad(noise, 2), 0, 255))


class TestInfer(TestCase):
    """infer.py at the command line. The model is an untrained one that knows ten digits; what it
    reads, pretrained.pt finds."""

    def setUp(self):
        super().setUp()
        torch.manual_seed(0)
        self.net = model.build("baseline", 10).eval()
        model.save(self.net, self.folder / "net.pt")
        png.write_png(self.folder / "seven.png", picture(written("7")))
        png.write_png(self.folder / "year.png", picture(written("2026\n85")))

    def infer(self, *arguments, checkpoint="net.pt"):
        out, err = io.StringIO(), io.StringIO()
        out.reconfigure = err.reconfigure = lambda **_: None
        arguments = ["--checkpoint", str(self.folder / checkpoint), *map(str, arguments)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = infer.main(arguments)
        return status, out.getvalue().splitlines(), err.getvalue()

    def test_another_network_reads_what_the_finder_finds(self):
        name = self.folder / "seven.png"
        status, lines, err = self.infer(name, "--json")
        item = json.loads(lines[0])
        self.assertEqual((status, len(lines), item["image"]), (0, 1, str(name)))
        self.assertIn("net.pt", err)
        self.assertAlmostEqual(sum(item["probabilities"]) + item["other"], 1, places=5)
        rgba = picture(written("7"))
        seen = torch.from_numpy(infer.mnist_style(rgba))[None]
        expected = evaluate.predict(self.net, seen).exp()[0] * (1 - item["other"])
        np.testing.assert_allclose(item["probabilities"], expected, atol=1e-6)
        finder = infer.own_finder()
        other = evaluate.predict_all(finder, seen).exp()[0, -1].item()
        self.assertAlmostEqual(item["other"], other, 5)
        reading, = infer.read_digits(self.net, rgba)
        self.assertEqual(reading.probabilities, item["probabilities"])

    def test_line_and_json_agree(self):
        for checkpoint in ("net.pt", HERE / "pretrained.pt"):
            for name in ("seven.png", "year.png"):
                path = self.folder / name
                _, lines, _ = self.infer(path, checkpoint=checkpoint)
                _, items, _ = self.infer(path, "--json", checkpoint=checkpoint)
                item = json.loads(items[0])
                text = " / ".join(item["text"].split("\n"))
                self.assertRegex(lines[0], rf"^{re.escape(str(path))} +{text} +"
                                 rf"{item['confidence']:.1%}( |$)")
                self.assertEqual("unsure" in lines[0], item.get("unsure", False))
                one = item["digits"][0]
                self.assertEqual((one["digit"], len(item["probabilities"])), (item["digit"], 10))
                self.assertEqual(max(item["probabilities"]), one["confidence"])
                self.assertEqual(item["confidence"],
                                 min(each["confidence"] for each in item["digits"]))

    def test_json_of_a_number_in_two_rows(self):
        status, lines, _ = self.infer(self.folder / "year.png", "--json",
                                      checkpoint=HERE / "pretrained.pt")
        item = json.loads(lines[0])
        self.assertEqual((status, item["text"], item["digit"]), (0, "2026\n85", 2))
        self.assertEqual([each["digit"] for each in item["digits"]], [2, 0, 2, 6, 8, 5])
        self.assertAlmostEqual(sum(item["probabilities"]) + item["other"], 1, places=5)
        drawing = written("2026\n85")
        for each in item["digits"]:
            self.assertEqual(set(each), {"digit", "label", "confidence", "box"})
            self.assertEqual(each["label"], str(each["digit"]))
            top, left, bottom, right = map(round, each["box"])
            self.assertGreater(drawing[top:bottom, left:right].mean(), 0.05)

    def test_the_least_certain_digit_decides_whether_it_is_unsure(self):
        def reading(digit, confidence):
            rest = [(1 - confidence) / 10] * 10
            rest[digit] = confidence
            return Reading(digit, confidence, rest, (1 - confidence) / 10, [0, 0, 9, 9], None,
                           list("0123456789"))

        for confidence in (0.999, UNSURE, UNSURE - 0.01):
            answer = Answer("a.png", rows=[[reading(2, 0.99), reading(0, confidence)],
                                                 [reading(7, 0.999)]])
            item = json.loads(answer.json())
            self.assertEqual((item["text"], item["confidence"]),
                             ("20\n7", min(confidence, 0.99)))
            self.assertEqual(item.get("unsure", False), confidence < UNSURE)
            self.assertEqual("unsure" in answer.line(5, 3), confidence < UNSURE)
            self.assertIn("20 / 7", answer.line(5, 3))

    def test_no_digit_found(self):
        png.write_png(self.folder / "empty.png", np.zeros((60, 60), np.uint8))
        status, lines, _ = self.infer(self.folder / "empty.png", self.folder / "seven.png")
        self.assertEqual((status, len(lines)), (1, 2))
        self.assertIn("error: no digit found", lines[0])
        status, lines, _ = self.infer(self.folder / "empty.png", "--json")
        self.assertEqual((status, json.loads(lines[0])),
                         (1, {"image": str(self.folder / "empty.png"), "error": "no digit found"}))

    def test_single(self):
        _, lines, _ = self.infer(self.folder / "year.png", "--single", "--json")
        self.assertEqual(len(json.loads(lines[0])["digits"]), 1)

    def test_a_bad_file_does_not_stop_the_others(self):
        (self.folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
        png.write_png(self.folder / "empty.png", np.zeros((9, 9), np.uint8))
        status, lines, _ = self.infer(self.folder / "none.png", self.folder)
        self.assertEqual(status, 1)
        self.assertEqual([" error: " in line for line in lines], [True, True, True, False, False])
        status, lines, _ = self.infer(self.folder, "--json")
        items = [json.loads(line) for line in lines]
        self.assertEqual([set(item) for item in items[:2]], [{"image", "error"}] * 2)
        self.assertEqual([Path(item["image"]).name for item in items],
                         ["bad.png", "empty.png", "seven.png", "year.png"])

    def test_a_picture_that_begins_like_idx(self):
        (self.folder / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        status, lines, _ = self.infer(self.folder / "x.heic")
        self.assertEqual(status, 1)
        self.assertIn("this is a HEIC or AVIF picture", lines[0])

    def test_an_empty_name(self):
        for arguments in ([""], [self.folder / "seven.png", "--index", ""]):
            with self.assertRaises(UsageError):
                self.infer(*arguments)

    def test_idx_and_index(self):
        digit = infer.mnist_style(picture(written("7")))
        idx_data.write_idx(self.folder / "some.gz", np.stack([digit, digit * 0, digit]))
        status, lines, _ = self.infer(self.folder / "some.gz", "--json")
        items = [json.loads(line) for line in lines]
        self.assertEqual((status, [item["index"] for item in items]), (1, [0, 1, 2]))
        self.assertEqual(items[0]["digits"], items[2]["digits"])
        status, lines, _ = self.infer(self.folder / "some.gz", "--index", "2,0")
        self.assertEqual((status, len(lines)), (0, 2))
        for wrong in ("3", "x", "-1", "1.5", ""):
            with self.assertRaises(ValueError):
                self.infer(self.folder / "some.gz", f"--index={wrong}")
        with self.assertRaises(ValueError):
            self.infer(self.folder / "seven.png", "--index", "0")

    def test_show_and_save_seen(self):
        name, out = self.folder / "seven.png", self.folder / "seen.png"
        status, lines, _ = self.infer(name, name, "--show", "--save-seen", out)
        self.assertEqual((status, len(lines)), (0, 2 + 2 * 14))
        seen = png.read_png(out.read_bytes())[..., 0]
        self.assertEqual(seen.shape, (28, 56))
        np.testing.assert_array_equal(seen[:, :28], infer.mnist_style(picture(written("7"))))
        _, lines, err = self.infer(name, "--show", "--json")
        self.assertEqual(len(lines), 1)  # what people read goes to stderr
        self.assertIn("█", err)

    def test_what_is_saved_is_png_and_named_so(self):
        for flag, name in (("--save-seen", "x.jpg"), ("--save-steps", "x")):
            self.fails(lambda: self.infer(self.folder / "seven.png", flag, self.folder / name),
                       f"{flag} must be a name that ends in .png, not ", name, kind=UsageError)
            self.assertFalse((self.folder / name).exists())

    def test_save_steps(self):
        out = self.folder / "steps.png"
        self.infer(self.folder / "none.png", self.folder / "seven.png", "--save-steps", out)
        rgba = picture(written("7"))
        (candidates, chosen), = infer.find_candidates([rgba[..., :3]], infer.own_finder())
        strip = png.read_png(out.read_bytes())[..., 0]
        np.testing.assert_array_equal(strip, seen.steps(rgba[..., :3], candidates, chosen))

    def test_no_output_replaces_an_input(self):
        """By the same name, by another one, as a picture in a folder, or the model itself."""
        name = self.folder / "seven.png"
        before = name.read_bytes()
        os.link(name, self.folder / "same.png")
        for flag, out, given in (("--save-seen", name, name),
                                 ("--save-steps", self.folder / "same.png", name),
                                 ("--save-seen", name, self.folder),
                                 ("--save-steps", self.folder / "net.pt", name)):
            self.fails(lambda: self.infer(given, flag, out), flag, out, "one of the files to read",
                       kind=UsageError)
        self.assertEqual(name.read_bytes(), before)

    def test_batches_come_by_count_by_pixels_and_by_time(self):
        answer = Answer("x")
        large = Answer("x", rgb=np.empty((3000, 3000, 3), np.uint8))
        for tick, answers, sizes in ((0, [answer] * 450, [200, 200, 50]),
                                     (0, [large] * 5, [2, 2, 1]),
                                     (0.3, [answer] * 10, [4, 4, 2])):
            with mock.patch("time.monotonic", itertools.count(step=tick).__next__):
                taken = list(batches(iter(answers)))
            self.assertEqual([len(batch) for batch in taken], sizes)

    def test_the_batch_changes_nothing(self):
        net = infer.own_finder()
        rgbs = [picture(written(text))[..., :3] for text in ("58", "3\n6")]
        rgbs.append(resize(written("5", 120, 16), 28)[..., None].repeat(3, 2) * 255)
        together = infer.read_pictures(net, net, rgbs)
        for rgb, rows in zip(rgbs, together):
            alone, = infer.read_pictures(net, net, [rgb])
            self.assertEqual([[reading.digit for reading in row] for row in rows],
                             [[reading.digit for reading in row] for row in alone])
            np.testing.assert_allclose([reading.confidence for row in rows for reading in row],
                                       [reading.confidence for row in alone for reading in row],
                                       atol=1e-4)

    def test_other_numbers_of_classes(self):
        for classes in (2, 26, 47):
            model.save(model.build("baseline", classes), self.folder / "net.pt")
            status, _, _ = self.infer(self.folder / "seven.png", "--top", "60", "--show")
            self.assertEqual(status, 0)
            status, lines, _ = self.infer(self.folder / "seven.png", "--json")
            self.assertEqual(len(json.loads(lines[0])["probabilities"]), classes)

    def test_bare_state_dict(self):
        torch.save(self.net.state_dict(), self.folder / "net.pt")
        with self.assertRaisesRegex(FormatError, "--model"):
            self.infer(self.folder / "seven.png")
        self.assertEqual(self.infer(self.folder / "seven.png", "--model", "baseline")[0], 0)

    def test_pretrained_has_to_know_what_is_no_digit(self):
        infer.own_finder.cache_clear()
        self.addCleanup(infer.own_finder.cache_clear)
        with mock.patch.object(model, "load", lambda *_: self.net):
            self.fails(infer.own_finder, "pretrained.pt", "knows what is no digit")

    def test_as_a_program(self):
        """Standard input, exit status 2 in one line, an output that takes no blocks."""
        def run(*arguments, **more):
            environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
            return subprocess.run([sys.executable, str(HERE / "infer.py"), *arguments],
                                  cwd=self.folder, env=environment, capture_output=True, **more)

        data = png.png_bytes(picture(written("7")))
        done = run("-", "--show", "--checkpoint", "net.pt", input=data)
        self.assertEqual((done.returncode, done.stdout.split()[0]), (0, b"-"))
        done = run("seven.png", "--checkpoint", "none.pt")
        self.assertEqual((done.returncode, done.stdout, done.stderr.count(b"\n")), (2, b"", 1))
        self.assertTrue(done.stderr.startswith(b"error: none.pt"))
