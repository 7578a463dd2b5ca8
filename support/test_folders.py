"""Folders of pictures as a data set, plain models trained on them, and folders that are none."""
import contextlib
import io
import json
import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import evaluate
import idx_data
import infer
import model
import train
from support import folders, splits
from support.characters import LIFT, drawn
from support.content import settle_content
from support.errors import UsageError
from support.pictures import small_grey
from support.png import write_png
from support.test_tools import TestCase, call, picture, run, toy_images, write_toy

import numpy as np
import torch

try:
    from PIL import Image  # no dependency: without it, all pictures are PNG
except ImportError:
    Image = None

TURN = np.linspace(0, 2 * np.pi, 25)[:, None]
SHAPES = {"circle": 0.5 + 0.5 * np.hstack([np.sin(TURN), np.cos(TURN)]),
          "cross": np.concatenate([[[0, 0], [1, 1]], LIFT, [[0, 1], [1, 0]]]),
          "square": np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]),
          "tick": np.array([[0.6, 0], [1, 0.4], [0, 1]]),
          "triangle": np.array([[0, 0.5], [1, 1], [1, 0], [0, 0.5]])}


def draw_shape(name: str, rng: np.random.Generator) -> np.ndarray:
    """A shape drawn with a dark pen on white paper of some size, (H, W, 4) uint8."""
    height, width = rng.integers(50, 150, 2)
    size = rng.uniform(0.5, 0.7) * min(height, width)
    angle = np.radians(rng.uniform(-15, 15))
    turned = (SHAPES[name] - 0.5) @ [[np.cos(angle), np.sin(angle)],
                                     [-np.sin(angle), np.cos(angle)]]
    middle = [height / 2, width / 2] + rng.uniform(-0.05, 0.05, 2) * min(height, width)
    ink = drawn((height, width), middle + size * turned, pen=rng.uniform(0.06, 0.12) * size)
    return picture(ink, paper=rng.integers(235, 256), dark=rng.integers(0, 60))


def write_picture(path: Path, rgba: np.ndarray) -> None:
    """As JPEG, where the name says so."""
    if path.suffix == ".png":
        write_png(path, rgba)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba[..., :3]).save(path)


def write_shapes(root: Path) -> None:
    """Five class folders of 40 pictures each, a quarter of them for testing; half are JPEG, where
    Pillow is there to read it."""
    rng = np.random.default_rng(0)
    for name in SHAPES:
        for number in range(40):
            part = "test" if number % 4 == 0 else "train"
            suffix = "jpg" if number // 4 % 2 and Image else "png"
            write_picture(root / part / name / f"{number}.{suffix}", draw_shape(name, rng))


def quietly(function, *arguments, **more) -> tuple:
    """The result of a function, and what it said on standard error."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        result = function(*arguments, **more)
    return result, err.getvalue()


class TestShapes(TestCase):
    """A model trained by one command on folders of dark shapes on white, of all sizes."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        write_shapes(cls.root / "shapes")
        cls.out, cls.err = call(train, "--data", "shapes", "--recipe", "quick", "--epochs", 10,
                                "--batch-size", 32, "--val-fraction", 0.2, "--device", "cpu",
                                cwd=cls.root)

    def answers(self, *paths) -> list[dict]:
        out, _ = call(infer, *paths, "--json", cwd=self.root)
        return [json.loads(line) for line in out.splitlines()]

    def test_it_learns_and_says_what_it_made_of_the_pictures(self):
        net = model.load(self.root / "model.pt")
        self.assertEqual((net.content, net.labels, net.inverted), ("plain", list(SHAPES), True))
        self.assertGreater(net.run["result"]["test_accuracy"], 0.9)
        self.assertIn("content plain: the classes are circle, cross, square, tick and 1 more",
                      self.out)
        for words in ("resized to 28 × 28", "150 of 150 training images have light borders"):
            self.assertEqual(self.err.count(words), 1, self.err)

    def test_infer_answers_as_evaluate_does_by_the_folders_names(self):
        """Picture by picture, not only as many."""
        digits, _ = quietly(idx_data.load_digits, self.root / "shapes")
        net = model.load(self.root / "model.pt")
        result = evaluate.evaluate(net, digits.test_images, digits.test_labels)
        found = self.answers(*(f"shapes/test/{name}" for name in SHAPES))
        self.assertEqual([item["label"] for item in found],
                         [list(SHAPES)[k] for k in result.predictions])
        right = sum(item["label"] == Path(item["image"]).parent.name for item in found)
        self.assertEqual((len(found), right), (50, 50 - result.errors))
        for item, row in zip(found, result.log_probabilities.exp()):
            np.testing.assert_allclose(item["probabilities"], row, atol=1e-5)
            self.assertEqual((item["other"], item["text"], item["digits"][0]["label"]),
                             (0, item["label"], item["label"]))
        out, err = call(evaluate, "--data", "shapes", "--json", cwd=self.root)
        self.assertEqual(json.loads(out)["errors"], result.errors)
        self.assertEqual(json.loads(out)["labels"], list(SHAPES))
        self.assertNotIn("other data", err)

    def test_names_for_people(self):
        out, _ = call(infer, "shapes/test/tick", "shapes/test/triangle", "--show", cwd=self.root)
        rows = [line for line in out.splitlines() if line.startswith("shapes")]
        self.assertEqual(len({line.index("%") for line in rows}), 1)  # beneath each other
        self.assertEqual(sum(" tick  " in line for line in rows),
                         sum(item["label"] == "tick" for item in
                             self.answers("shapes/test/tick", "shapes/test/triangle")))
        self.assertIn(" triangle ", out)
        self.assertNotIn("other", out)
        out, _ = call(evaluate, "--data", "shapes", "--report", "report", cwd=self.root)
        self.assertRegex(out, r"\ntriangle +10 ")
        page = (self.root / "report/index.html").read_text(encoding="utf-8")
        self.assertRegex(page, "<td>triangle</td>")

    def test_read_digits_of_a_plain_model(self):
        net = model.load(self.root / "model.pt")
        rgba = draw_shape("circle", np.random.default_rng(9))
        reading, = infer.read_digits(net, rgba)
        self.assertEqual(reading.box, [0, 0, *rgba.shape[:2]])
        np.testing.assert_array_equal(reading.seen, 255 - small_grey(rgba[..., :3]))
        self.assertEqual(infer.read_digits(net, rgba[..., 0])[0].probabilities,
                         reading.probabilities)

    def test_there_are_no_steps_to_save(self):
        self.fails(lambda: call(infer, "shapes/test/tick", "--save-steps", "a.png", cwd=self.root),
                   "--save-steps", "as they are", kind=UsageError)

    def test_converted_it_is_the_same_data_set(self):
        """Names and polarity, too: what infer.py reads in the IDX file is what it learned."""
        call(idx_data, "--convert", "shapes", "converted", cwd=self.root)
        self.fails(lambda: call(idx_data, "--convert", "shapes", "converted", cwd=self.root),
                   "converted holds a data set already", kind=UsageError)
        before, _ = quietly(idx_data.load_digits, self.root / "shapes")
        after, err = quietly(idx_data.load_digits, self.root / "converted")
        self.assertIn("turned round", err)
        self.assertEqual((after.hashes(), after.labels, after.inverted),
                         (before.hashes(), before.labels, True))
        self.assertTrue(torch.equal(after.train_images, before.train_images))
        items = self.answers("converted/t10k-images-idx3-ubyte")
        self.assertEqual([item["label"] for item in items],
                         [item["label"] for item in self.answers(
                             *(f"shapes/test/{name}" for name in SHAPES))])


class TestFurtherTraining(TestCase):
    """train.py --from, with folders of some of the model's classes."""

    def test_names_and_polarity(self):
        """What infer.py and evaluate.py then say of pictures that are dark on light."""
        names = ("cat", "dog", "emu")
        for root, labels in (("pets", (0, 1, 2)), ("more", (1, 2))):
            for part, count in (("train", 40), ("test", 10)):
                for label in labels:
                    for number, image in enumerate(toy_images(np.full(count, label), label)):
                        grey = 255 - image if root == "more" else image
                        write_png(self.folder / root / part / names[label] / f"{number}.png", grey)
        call(train, "--data", "pets", "--batch-size", 16, "--out", "a.pt", cwd=self.folder)
        _, err = call(train, "--from", "a.pt", "--data", "more", "--out", "b.pt", "--lr", 0.002,
                      cwd=self.folder)
        self.assertIn("infer.py takes all pictures to be dark on light", err)
        net = model.load(self.folder / "b.pt")
        self.assertEqual((net.labels, net.inverted), (list(names), True))
        out, _ = call(evaluate, "b.pt", "--data", "more", "--json", cwd=self.folder)
        confusion = np.array(json.loads(out)["confusion"])
        self.assertEqual(confusion.sum(1).tolist(), [0, 10, 10])
        self.assertGreaterEqual(confusion.trace(), 18)
        out, _ = call(infer, "more/test/dog", "more/test/emu", "--checkpoint", "b.pt", "--json",
                      cwd=self.folder)
        read = [json.loads(line)["label"] for line in out.splitlines()]
        correct = np.array(read) == np.repeat(["dog", "emu"], 10)
        self.assertEqual(correct.sum(), confusion.trace())

    def test_other_classes_are_refused(self):
        model.save(model.build("lenet"), self.folder / "a.pt")
        for label, name in enumerate(("cat", "dog")):
            for number, image in enumerate(toy_images(np.full(4, label))):
                write_png(self.folder / f"pets/train/{name}/{number}.png", image)
        self.fails(lambda: call(train, "--from", "a.pt", "--data", "pets", cwd=self.folder), "pets",
                   "cat, dog", "the model knows 0, 1, 2, 3 and 6 more", kind=UsageError)


class TestFolders(TestCase):
    def write(self, *names: str, grey=None) -> None:
        """Pictures of these names, each a light bar on black at a place of its own."""
        for place, name in enumerate(names):
            page = np.zeros((40, 40), np.uint8)
            page[5 + place % 30] = 255
            write_png(self.folder / name, page if grey is None else grey)

    def load(self):
        return quietly(idx_data.load_digits, self.folder)

    def test_sizes_colours_and_transparency(self):
        """All are the mean over areas, as written out here; a 28 × 28 one stays as it is."""
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 90, (56, 84, 3), np.uint8)
        same = rng.integers(0, 90, (28, 28), np.uint8)
        ink = np.zeros((30, 30, 4), np.uint8)  # light on transparent: what is behind is black
        ink[10:20, 10:20] = 250, 250, 250, 255
        for name, pixels in (("a/1", rgb), ("b/2", same), ("b/3", ink)):
            write_png(self.folder / f"train/{name}.png", pixels)
        digits, err = self.load()
        blocks = rgb.reshape(28, 2, 28, 3, 3).mean((1, 3)) @ [0.299, 0.587, 0.114]
        self.assertLessEqual(abs(digits.train_images[0].numpy() - blocks).max(), 0.51)
        np.testing.assert_array_equal(digits.train_images[1].numpy(), same)
        self.assertEqual(digits.train_images[2, 0, 0], 0)
        self.assertEqual(digits.train_images[2, 14, 14], 250)
        self.assertIn("from 28 × 28 to 84 × 56 pixels, resized to 28 × 28", err)
        self.assertFalse(digits.inverted)

    @unittest.skipIf(os.name == "nt", "links need rights there")
    def test_picture_folders(self):
        labels = {"train": [0, 1, 2, 10] * 2, "test": [10, 2]}
        for part, values in labels.items():
            for i, image in enumerate(toy_images(np.array(values), 3)):
                write_png(self.folder / part / str(values[i]) / f"{i}.png", image)
        digits = idx_data.load_digits(self.folder)
        self.assertEqual((digits.train_labels.tolist(), digits.test_labels.tolist()),
                         ([0, 0, 1, 1, 2, 2, 10, 10], [2, 10]))
        np.testing.assert_array_equal(digits.test_images[1].numpy(),
                                      toy_images(np.array([10, 2]), 3)[0])
        out, _ = call(idx_data, "--convert", self.folder, self.folder / "out")
        self.assertIn("t10k-labels-idx1-ubyte", out)
        self.assertEqual(idx_data.load_digits(self.folder / "out").hashes(), digits.hashes())
        self.file(b"\x89PNG\r\n", "test/2/big.png")
        self.fails(lambda: idx_data.load_digits(self.folder), "big.png", "PNG")

    def test_named_classes_and_hidden_files(self):
        # Names that are no numbers are numbered in order; what editors and macOS leave is no class.
        for name in ("train/cat", "train/dog", "test/dog"):
            write_png(self.folder / name / "a.png", toy_images(np.array([1]))[0])
        self.file(b"not a picture", "train/cat/._a.png")
        self.file(b"{}", "train/.ipynb_checkpoints/x.png")
        digits = idx_data.load_digits(self.folder, download=False)
        self.assertEqual((digits.train_labels.tolist(), digits.test_labels.tolist()), ([0, 1], [1]))

    def test_own_pictures_are_not_answered_with_mnist(self):
        (self.folder / "flat/7").mkdir(parents=True)
        self.fails(lambda: idx_data.load_digits(self.folder / "flat"), "flat", "train/CLASS",
                   kind=FileNotFoundError)
        (self.folder / "half/train/3").mkdir(parents=True)
        self.fails(lambda: idx_data.load_digits(self.folder / "half"), "half", "found none")
        self.fails(lambda: idx_data.load_digits(self.file(b"x")), "expected the folder",
                   kind=FileNotFoundError)

    def test_links_are_followed_once(self):
        self.write("elsewhere/1.png", "train/a/2.png", "train/b/3.png")
        (self.folder / "train/a/more").symlink_to(self.folder / "elsewhere")
        (self.folder / "elsewhere/back").symlink_to(self.folder / "train/a")
        digits, _ = self.load()
        self.assertEqual(digits.train_labels.tolist(), [0, 0, 1])

    def test_turned_round_where_most_borders_are_light(self):
        for count, turned in ((2, False), (3, True)):
            for number in range(5):
                grey = np.full((28, 28), 255 if number < count else 0, np.uint8)
                grey[10:20, 10 + number] = 100
                write_png(self.folder / f"train/{number % 2}/{number}.png", grey)
            write_png(self.folder / "test/1/a.png", grey)
            digits, err = self.load()
            self.assertEqual((digits.inverted, err.count("turned round")), (turned, int(turned)))
            self.assertEqual(digits.test_images[0, 0, 0], 255 if turned else 0)
            self.assertEqual(digits.test_images[0, 10, 14], 155 if turned else 100)

    def test_subfolders_belong_to_the_class(self):
        self.write("train/a/x/1.png", "train/a/2.png", "train/b/y/z/3.png", "train/a/.hidden/4.png",
                   "train/b/._5.png")
        digits, _ = self.load()
        self.assertEqual(digits.train_labels.tolist(), [0, 0, 1])

    def test_val_is_for_validation_and_without_test_there_are_no_test_figures(self):
        self.write(*(f"train/a/{i}.png" for i in range(12)), "val/a/2.png")
        upright = np.zeros((40, 40), np.uint8)
        upright[:, 18:22] = 255
        for name in (*(f"train/b/{i}.png" for i in range(12)), "val/b/1.png", "val/b/3.png"):
            write_png(self.folder / name, upright)
        digits, err = self.load()
        training, validation = digits.split(0.5, 3)
        self.assertEqual(digits.train_labels[validation].tolist(), [0, 1, 1])
        self.assertEqual(digits.train_labels[training].tolist(), [0] * 12 + [1] * 12)
        self.assertIn("the 3 pictures in val are used for validation", err)
        for seeds, words in ((1, "so there is no test accuracy"), (2, "2 seeds: validation acc")):
            out, err = call(train, "--data", ".", "--recipe", "quick", "--epochs", 5,
                            "--batch-size", 4, "--json", "--seeds", seeds, cwd=self.folder)
            self.assertIsNone(json.loads(out.splitlines()[0])["test_accuracy"])
            self.assertIn(words, err)
        self.fails(lambda: call(evaluate, "model-0.pt", "--data", ".", cwd=self.folder),
                   "no test images; give --split val", kind=UsageError)
        out, _ = call(evaluate, "model-0.pt", "--data", ".", "--split", "val", "--json",
                      cwd=self.folder)
        self.assertEqual(json.loads(out)["images"], 3)

    def test_single_digits_are_ten_classes(self):
        self.write("train/3/a.png", "train/7/b.png", "test/7/c.png")
        digits, _ = self.load()
        self.assertEqual((digits.train_labels.tolist(), digits.test_labels.tolist()), ([3, 7], [7]))
        self.assertEqual(digits.class_names, list("0123456789"))

    def test_names_and_numbers(self):
        for names, labels in ((["b", "a"], {"a": 0, "b": 1}), (["10", "9", "1"], {
                "1": 0, "9": 1, "10": 2}), (["00", "01", "10"], {"00": 0, "01": 1, "10": 10}),
                (["2", "x"], {"2": 0, "x": 1}), (["²", "3"], {"3": 0, "²": 1})):
            self.assertEqual(folders.class_names(set(names)), labels)
        self.assertEqual(folders.all_names({"00": 0, "02": 2}), ["00", "1", "02"])
        self.write("train/1/a.png", "train/2/b.png", "test/01/c.png")
        self.fails(self.load, self.folder, "found 01 and 1")

    def test_a_name_that_would_steer_a_terminal(self):
        self.assertEqual(folders.all_names({"a\n\x1b[2J": 0, "b": 1}), ["a??[2J", "b"])

    def test_what_is_left_out_is_said(self):
        self.write("train/a/1.png", "train/b/2.png", "train/3.png", "train/4.png", "more/a/5.png")
        self.file(b"words", "train/notes/read.me")
        digits, err = self.load()
        self.assertEqual(digits.class_names, ["a", "b"])
        self.assertIn("not used: train/notes (no pictures), loose pictures (2) in train, more/",
                      err)

    def test_a_bad_picture_is_named(self):
        self.write("train/a/1.png", "train/b/2.png")
        for data in (b"\x89PNG\r\n", b"", b"<html>"):
            self.file(data, "train/b/3.png")
            self.fails(self.load, "3.png")

    def test_names_beside_idx_files(self):
        write_toy(self.folder, 40, 20, classes=3)
        self.file("Ärmel\nhose\nrock\n".encode(), "classes.txt")
        self.assertEqual(self.load()[0].class_names, ["Ärmel", "hose", "rock"])
        for data, *words in ((b"a\nb\n", "3 classes", "found 2"), (b"a\nb\na\n", "2 of them"),
                             (b"a\nb\n\n", "printable"), (b"a\nb\n\xff", "UTF-8"),
                             (b"a\nb\nc\x1b", "printable")):
            self.file(data, "classes.txt")
            self.assertNotIn("\x1b", self.fails(self.load, "classes.txt", *words))


class TestNoDataSet(TestCase):
    """Nothing is downloaded, and nothing written, where the folder is not what it should be."""

    def setUp(self):
        super().setUp()
        for name in ("loose/1.png", "caps/Train/a/1.png", "flat/cat/1.png", "flat/dog/2.png",
                     "good/train/a/1.png", "good/train/b/1.png", "typo/train/a/1.png",
                     "typo/Test/a/1.png", "loosetrain/train/1.png"):
            write_png(self.folder / name, np.eye(28, dtype=np.uint8) * 255)
        (self.folder / "empty").mkdir()
        self.file(b"PK", "other/data.zip")

    def test_what_was_found_and_the_nearest_spelling(self):
        before = sorted(self.folder.rglob("*"))
        for name, *words in (("loose", "loose pictures (1)", "train/CLASS"),
                             ("caps", "the folder Train", "did you mean train?"),
                             ("flat", "the folders cat, dog", "put them into", "flat/train"),
                             ("good/train", "the folders a, b", "give the folder above", "good"),
                             ("empty", "an empty folder", "--download"),
                             ("other", "data.zip"), ("loosetrain", "loose pictures (1)", "train"),
                             ("god", "no such folder; did you mean ", "good?"),
                             ("dta", "no such folder; did you mean ", "data?"),
                             ("nothing/like/it", "no such folder", "--download")):
            for download in (None, False):
                self.fails(lambda: idx_data.load_digits(self.folder / name, download),
                           self.folder / name, "expected the files", *words, kind=FileNotFoundError)
        self.fails(lambda: idx_data.load_digits(self.folder / "typo"), "found Test",
                   "did you mean test?")
        self.fails(lambda: idx_data.load_digits(""), "empty", kind=UsageError)
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def test_download_is_for_empty_and_new_folders(self):
        """From a mirror that has other data than MNIST, which nothing is taken from."""
        mirror = str(self.folder / "empty")
        for name in ("loose", "caps", "flat", "other", "loosetrain"):
            self.fails(lambda: idx_data.load_digits(self.folder / name, True, mirror),
                       "expected the files", kind=FileNotFoundError)

    def test_train_never_takes_mnist_for_it(self):
        for name in ("loose", "caps", "dta"):
            self.fails(lambda: call(train, "--data", name, "--mirror", "empty", cwd=self.folder),
                       "expected the files", kind=FileNotFoundError)
        done = run("train.py", "--data", "", cwd=self.folder, check=2)
        self.assertEqual((done.stdout, done.stderr.count("\n")), ("", 1))
        self.error_line(done, "--data is empty")
        self.assertFalse(list(self.folder.rglob("*ubyte*")))

    def test_the_default_folder_with_pictures_in_it(self):
        for name in ("data/1.png", "data/cat/1.png", "data/Train/a/1.png"):
            write_png(self.folder / name, np.eye(28, dtype=np.uint8) * 255)
            self.fails(lambda: call(idx_data, cwd=self.folder), "data: expected the files",
                       kind=FileNotFoundError)
            (self.folder / name).unlink()


class TestDoubts(TestCase):
    """What doesn't fit is said before training; nothing, where all is well."""

    def warning(self, train_labels, test_labels, content="plain", **more) -> str:
        images = torch.zeros(len(train_labels), 28, 28, dtype=torch.uint8)
        digits = idx_data.Digits(images, torch.tensor(train_labels), images[: len(test_labels)],
                                 torch.tensor(test_labels, dtype=torch.int64), **more)
        _, err = quietly(settle_content, digits, content, io.StringIO())
        self.assertLessEqual(err.count("\n"), 1)
        return err

    def test_classes_that_are_missing(self):
        self.assertIn("training images of 2, 3, but none for testing",
                      self.warning([0, 1, 2, 3], [0, 1]))
        self.assertIn("test images of cat, but none to learn from",
                      self.warning([0, 0, 1], [0, 1, 2], labels=["ape", "bee", "cat"]))
        self.assertIn("validation images of 2, but none to learn from",
                      self.warning([0, 1, 2], [0, 1], val_count=1))
        self.assertEqual(self.warning([0, 1, 2], [0, 1, 2]), "")
        self.assertEqual(self.warning([0, 1, 2], []), "")
        self.assertEqual(self.warning([3, 7], [3, 7], labels=list("0123456789")), "")

    def test_labels_shifted_by_one(self):
        labels = list(range(1, 11))
        self.assertIn("the labels go from 1 to 10", self.warning(labels, labels))
        self.assertEqual(self.warning(labels[:9], labels[:9], "digits"), "")  # MNIST without zeros

    def test_in_a_run(self):
        toy = write_toy(self.folder / "toy", 60, 20)
        labels = idx_data.read_idx(toy / "t10k-labels-idx1-ubyte")
        idx_data.write_idx(toy / "t10k-labels-idx1-ubyte", labels % 9)
        _, err = call(train, "--data", "toy", "--recipe", "quick", "--lr", 1e-9, cwd=self.folder,
                      status=1)  # at such a rate nothing is learned
        self.assertEqual(err, "warning: there are training images of 9, but none for testing\n")

    def test_a_model_of_other_data(self):
        first, second = (idx_data.load_digits(write_toy(self.folder / name, count, 20))
                         for name, count in (("first", 40), ("second", 50)))
        net = model.build("tiny2k")
        net.run = {"data": first.hashes()}
        model.save(net, self.folder / "a.pt")
        for name, said in (("first", False), ("second", True)):
            out, err = call(evaluate, "a.pt", "--data", name, "--json", cwd=self.folder)
            self.assertEqual("a.pt was trained on other data than" in err, said)
            self.assertEqual(json.loads(out)["images"], 20)
        tested = replace(first, test_labels=first.test_labels.flip(0))  # test images of one's own
        self.assertFalse(splits.is_of_other_data(net, tested))
        self.assertTrue(splits.is_of_other_data(net, replace(first, labels=list("abcdefghij"))))
