"""Every test of the project; standard unittest, also collected by pytest.

    python test_all.py                 all of it, without a network, in about three minutes
    python test_all.py TestIdx         one class

Oracles, not echoes: bytes written by hand, slow references, published numbers, real processes. What
needs the real MNIST looks for it in data/ and says so where it is skipped.
"""
import ast
import contextlib
import copy
import errno
import gc
import gzip
import io
import itertools
import json
import math
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import tracemalloc
import unittest
import weakref
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from unittest import mock

import evaluate  # the local modules first: support/__init__.py sets what torch reads when loaded
import idx_data
import infer
import model
import train
from support import benchmark, cutting, ink, png, seen, test_canvas
from support.answers import UNSURE, Answer, Reading, batches
from support.compositions import drawn, examples
from support.errors import FormatError, UsageError
from support.ink import Candidate, components
from support.mnist_style import draw, place, resize
from support.pictures import opaque
from support.test_tools import (HERE, SCRIPTS, TestCase, ToyTestCase, call, data_folder, fuzz,
                                mnist, needs_mnist, picture, run, some_digits, some_net,
                                some_result, toy_images, write_digits, write_toy, written,
                                written_digit)

import numpy as np
import torch  # after support/__init__.py, which says why
import torch.nn.functional as F


def setUpModule():
    """unittest's protocol: before the first test. Importing changes nothing."""
    torch.set_num_threads(2)


# --- IDX files ------------------------------------------------------------------------------------

class TestIdx(TestCase):
    # Header and elements written by hand: type, dimensions, bytes, values.
    BY_HAND = [
        ("00000801 00000003 00 7f ff", np.uint8, [0, 127, 255]),
        ("00000901 00000003 00 7f ff", np.int8, [0, 127, -1]),
        ("00000b01 00000002 0102 fffe", np.int16, [258, -2]),
        ("00000c02 00000001 00000002 00010203 ffffffff", np.int32, [[66051, -1]]),
        ("00000d01 00000002 3f800000 c0490fdb", np.float32, [1, -3.1415927410125732]),
        ("00000e01 00000001 4009 21fb 5444 2d18", np.float64, [math.pi]),
        ("00000800 2a", np.uint8, 42),
        ("00000802 00000000 00000007", np.uint8, np.empty((0, 7))),
    ]

    def test_reads_bytes_written_by_hand(self):
        for text, dtype, values in self.BY_HAND:
            raw = bytes.fromhex(text)
            for data in (raw, gzip.compress(raw), gzip.compress(raw[:5]) + gzip.compress(raw[5:])):
                array = idx_data.read_idx(self.file(data))
                self.assertEqual((array.dtype, array.shape), (np.dtype(dtype), np.shape(values)))
                self.assertTrue(array.dtype.isnative and array.flags.writeable)
                np.testing.assert_array_equal(array, values)

    def test_header_of_the_training_images(self):
        header = bytes.fromhex("0000 08 03 0000ea60 0000001c 0000001c")
        self.assertEqual(idx_data.read_header(io.BytesIO(header)), (0, 8, (60_000, 28, 28)))

    def test_writes_the_same_bytes(self):
        for text, dtype, values in self.BY_HAND:
            idx_data.write_idx(self.folder / "a", np.array(values, dtype))
            idx_data.write_idx(self.folder / "a.gz",
                               np.array(values, np.dtype(dtype).newbyteorder(">")))
            self.assertEqual((self.folder / "a").read_bytes(), bytes.fromhex(text))
            self.assertEqual(gzip.decompress((self.folder / "a.gz").read_bytes()),
                             bytes.fromhex(text))
        many = np.arange(6).astype(np.int16).reshape((1,) * 40 + (2, 3))
        idx_data.write_idx(self.folder / "many", many)
        np.testing.assert_array_equal(idx_data.read_idx(self.folder / "many"), many)

    def test_writes_strided_arrays_in_order(self):
        array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
        idx_data.write_idx(self.folder / "a", array)
        np.testing.assert_array_equal(idx_data.read_idx(self.folder / "a"), array)

    def test_refuses_what_idx_cannot_hold(self):
        for bad in (np.zeros(3, bool), np.zeros(3, np.int64), np.zeros(3, np.complex64)):
            self.fails(lambda bad=bad: idx_data.write_idx(self.folder / "a", bad), "IDX", bad.dtype,
                       kind=ValueError)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_says_what_is_wrong(self):
        good = bytes.fromhex("00000802 00000002 00000003 010203040506")
        for data, *words in [
                (b"", "an empty file"), (good[:3], "begins with 00 00 08"),
                (good[:10], "2 dimensions"), (good[:-1], "2 × 3", "6 bytes", "found 5"),
                (good[:12], "6 bytes", "found 0"),
                (good + b"!", "6 bytes", "found more"), (b"\1" + good[1:], "two zero bytes"),
                (b"\0\0\x0a" + good[3:], "element type", "0A"),
                (bytes.fromhex("00000803 ffffffff ffffffff ffffffff 00"), "4294967295"),
                (bytes.fromhex("000008ff") + b"\0\0\0\1" * 255 + b"x", "that numpy holds"),
                (bytes.fromhex("00000804 00000000" + "ffffffff" * 3), "that numpy holds"),
                (b"<!DOCTYPE html><title>404</title>", "HTML page"), (b"\n <html>", "HTML page"),
                (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
                (gzip.compress(good)[:-9], "gzip"), (gzip.compress(good)[:12], "gzip"),
                (gzip.compress(good[:-1]), "6 bytes", "found 5"),
                (gzip.compress(good + b"!"), "found more"),
                (gzip.compress(good)[:-8] + b"\0" * 8, "gzip"),
                (gzip.compress(good) + b"junk", "gzip"),
                (gzip.compress(bytes.fromhex("00000801 7fffffff")), "2,147,483,647"),
                (gzip.compress(b"<html>"), "HTML page")]:
            path = self.file(data, "named")
            message = self.fails(lambda path=path: idx_data.read_idx(path), path, "expected",
                                 "found", *words)
            self.assertNotIn("\n", message)
        self.assertRaises(FileNotFoundError, idx_data.read_idx, self.folder / "none")

    def test_bomb(self):
        header = bytes.fromhex("00000801 00000064")  # says 100 bytes; 10**8 follow
        packer = zlib.compressobj(9, wbits=31)
        packed = packer.compress(header)
        for _ in range(100):
            packed += packer.compress(bytes(10**6))
        path = self.file(packed + packer.flush())
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.fails(lambda: idx_data.read_idx(path), "found more")
        self.assertLess(tracemalloc.get_traced_memory()[1], 10**7)

    def test_more_than_memory_holds_is_refused_by_the_header(self):
        """Files of gigabytes that take no place on the disk; what comes after a header is not
        looked at."""
        header = bytes.fromhex("00000803 00080000 00001000 00001000")  # 8 TiB of bytes
        words = bytes.fromhex("00000c03 00020000 00001000 00001000")  # of int32: not to be mapped
        for data, size in ((words, (1 << 43) + 16), (gzip.compress(header + bytes(99)), 1 << 34)):
            path = self.file(data)
            with contextlib.suppress(OSError):
                os.truncate(path, size)
                self.fails(lambda: idx_data.read_idx(path), path, "8,796,093,022,208 bytes",
                           "of free memory")

    def test_a_gzip_file_takes_no_more_than_its_elements(self):
        raw = bytes.fromhex("00000801 00989680") + bytes(10**7)
        path = self.file(gzip.compress(raw))
        del raw
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        idx_data.read_idx(path)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1.2e7)

    def test_any_bytes(self):
        def read(data):
            idx_data.read_idx(self.file(data))
        raw = [bytes.fromhex(text) for text, *_ in self.BY_HAND]
        fuzz(self, read, *raw, *map(gzip.compress, raw), growth=5000)


# --- Data sets: layouts, tensors ------------------------------------------------------------------

class TestDataSet(TestCase):
    def test_every_layout(self):
        toy = write_toy(self.folder / "toy", 40, 20)
        expected = idx_data.load_digits(toy)
        self.assertEqual((expected.train_images.shape, expected.train_images.dtype),
                         ((40, 28, 28), torch.uint8))
        self.assertEqual((expected.test_labels.shape, expected.test_labels.dtype),
                         ((20,), torch.int64))
        np.testing.assert_array_equal(expected.train_images.numpy(),
                                      toy_images(np.arange(40) % 10, 40))
        layouts = {"gz": "{}.gz", "raw": "MNIST/raw/{}", "raw gz": "MNIST/raw/{}.gz",
                   "parts": "{part}/{}",
                   "parts gz": "{part}/{}.gz", "dots": "{dots}", "parts dots": "{part}/{dots}.gz"}
        for layout, pattern in layouts.items():
            root = self.folder / layout
            for path in toy.iterdir():
                part = "train" if path.name.startswith("train") else "test"
                name = pattern.format(path.name, part=part, dots=path.name.replace("-idx", ".idx"))
                data = path.read_bytes()
                self.file(gzip.compress(data) if name.endswith("gz") else data, f"{layout}/{name}")
            digits = idx_data.load_digits(root, download=False)
            self.assertEqual(digits.hashes(), expected.hashes(), layout)
        # A stray file does not hide the complete set in a layout that is looked at later.
        shutil.copy(toy / "t10k-labels-idx1-ubyte", self.folder / "raw")
        self.assertEqual(idx_data.load_digits(self.folder / "raw").hashes(), expected.hashes())

    def test_what_does_not_fit(self):
        def write(name, array):
            idx_data.write_idx(self.folder / name, array)
            return self.folder

        images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
        for name, array, *words in [
                (labels, np.zeros(39, np.uint8), images, "40", "39"),
                (labels, np.full(40, -1, np.int8), "-1"),
                (labels, np.zeros((40, 1), np.uint8), "40 × 1"),
                (labels, np.zeros(40, np.float32), "float32"),
                (labels, np.full(40, 10**9, np.int32), "classes", "1000000000"),
                (images, np.zeros((40, 784), np.uint8), "40 × 784"),
                (images, np.zeros((40, 20, 20), np.uint8), "20 × 20", "28 × 28"),
                (images, np.zeros((40, 28, 28), np.float32), "float32"),
                (images, np.zeros((40, 0, 28), np.uint8), "40 × 0 × 28")]:
            write_toy(self.folder, 40, 20)
            write(name, array)
            self.fails(lambda: idx_data.load_digits(self.folder), *words)
        write_toy(self.folder, 40, 20)
        write(images, np.zeros((0, 28, 28), np.uint8))
        write(labels, np.zeros(0, np.uint8))
        self.fails(lambda: idx_data.load_digits(self.folder), images)

    def test_another_data_set_is_not_mixed_with_mnist(self):
        (write_toy(self.folder, 40, 20) / "t10k-labels-idx1-ubyte").unlink()
        message = self.fails(lambda: idx_data.load_digits(self.folder), "t10k-labels-idx1-ubyte",
                             kind=FileNotFoundError)
        self.assertIn("not MNIST's", message)

    def test_picture_folders(self):
        labels = {"train": [0, 1, 2, 10] * 2, "test": [10, 2]}
        for part, values in labels.items():
            for i, image in enumerate(toy_images(np.array(values), 3)):
                png.write_png(self.folder / part / str(values[i]) / f"{i}.png", image)
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
            png.write_png(self.folder / name / "a.png", toy_images(np.array([1]))[0])
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

    def test_split(self):
        training, validation = idx_data.split(100, 0.15, 3)
        self.assertEqual((len(training), len(validation)), (85, 15))
        self.assertEqual(sorted(torch.cat([training, validation]).tolist()), list(range(100)))
        self.assertEqual(idx_data.split(100, 0.15, 3)[1].tolist(), validation.tolist())
        self.assertNotEqual(idx_data.split(100, 0.15, 4)[1].tolist(), validation.tolist())
        for count, fraction in ((10, 0.01), (10, 0.99), (1, 0.5)):
            self.fails(lambda c=count, f=fraction: idx_data.split(c, f, 0), "--val-fraction",
                       kind=UsageError)

    def test_mean_std_and_standardise(self):
        images = torch.from_numpy(toy_images(np.arange(2500), 1))
        mean, std = idx_data.mean_std(images)
        self.assertAlmostEqual(mean, images.double().div(255).mean().item(), 12)
        self.assertAlmostEqual(std, images.double().div(255).std(correction=0).item(), 12)
        x = idx_data.standardise(images, mean, std)
        self.assertEqual((x.shape, x.dtype), ((2500, 1, 28, 28), torch.float32))
        self.assertAlmostEqual(x.double().mean().item(), 0, 5)
        self.assertAlmostEqual(x.double().std(correction=0).item(), 1, 5)
        self.assertAlmostEqual(x[7, 0, 9, 9].item(), (images[7, 9, 9].item() / 255 - mean) / std, 5)
        floats = images.float()
        self.assertTrue(torch.equal(idx_data.standardise(floats, mean, std), x))
        self.assertTrue(torch.equal(floats, images.float()))  # what is given stays as it was
        self.fails(lambda: idx_data.mean_std(torch.full((3, 28, 28), 9, dtype=torch.uint8)),
                   "same grey")

    def test_any_bytes(self):
        """A mutated file in the place of one of the four."""
        toy = write_toy(self.folder / "toy", 20, 10)
        good = {name: (toy / name).read_bytes() for name in idx_data.FILES}

        def read(data):
            name = list(good)[len(data) % 4]
            (toy / name).write_bytes(data)
            try:
                idx_data.load_digits(toy, download=False)
            finally:
                (toy / name).write_bytes(good[name])
        fuzz(self, read, *good.values())


@needs_mnist
class TestMnist(TestCase):
    def test_published_facts(self):
        digits = mnist()
        self.assertEqual((digits.train_images.shape, digits.test_images.shape),
                         ((60000, 28, 28), (10000, 28, 28)))
        self.assertEqual(torch.bincount(digits.train_labels).tolist(),
                         [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
        self.assertEqual(torch.bincount(digits.test_labels).tolist(),
                         [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
        self.assertEqual(digits.train_labels[:10].tolist(), [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
        mean, std = idx_data.mean_std(digits.train_images)
        self.assertEqual((round(mean, 4), round(std, 4)), (0.1307, 0.3081))
        self.assertTrue(digits.is_mnist())

    def test_the_script_prints_them(self):
        out, _ = call(idx_data, "--data", data_folder())
        for word in ("60,000", "10,000", "0.1307", "0.3081", "6,742", "892", "MNIST itself"):
            self.assertIn(word, out)


# --- Networks and checkpoints ---------------------------------------------------------------------

# What the published designs have, and what the project's own stay below.
PARAMETERS = {"wide": 241_546, "dropout": 21_840, "compact": 24_488, "lenet": 21_840}
LIMITS = {"small": 25_000, "tiny10k": 10_000, "tiny5k": 5_000, "tiny2k": 2_000, "golf": 570}


class TestModel(TestCase):
    def test_parameter_counts(self):
        for name, count in PARAMETERS.items():
            self.assertEqual(model.parameters(model.build(name)), count, name)
        for name, limit in LIMITS.items():
            self.assertLessEqual(model.parameters(model.build(name)), limit, name)

    def test_logits_of_every_network(self):
        for name, classes in itertools.product(model.MODELS, (10, 47)):
            logits = model.build(name, classes).eval()(torch.zeros(3, 1, 28, 28))
            self.assertEqual(logits.shape, (3, classes), name)
            self.assertIsInstance(list(model.build(name).children())[-1],
                                  torch.nn.Linear)  # raw logits

    def test_a_checkpoint_of_an_earlier_version_is_read(self):
        for models, name in [(models, name) for models in model.EARLIER for name in models]:
            net = model.build(name, 7, models=models).eval()
            model.save(net, self.folder / "earlier.pt")
            again = model.load(self.folder / "earlier.pt")
            image = torch.rand(2, 1, 28, 28)
            torch.testing.assert_close(again(image), net(image))
            self.assertNotEqual(model.parameters(net), model.parameters(model.build(name, 7)))

    def test_summary(self):
        # Conv 5×5 on 28×28: 24² positions × (25 + 1) × 10 = 149,760; and so on: 31.21 M for 64.
        text = model.summary(model.build("lenet"))
        for words in (["conv1", "10 × 24 × 24", "260", "149,760"],
                      ["linear1", "50", "16,050", "16,050"],
                      ["total", "21,840", "487,600"], ["64 images", "31.21 M"]):
            self.assertTrue(any(all(word in line for word in words) for line in text.splitlines()),
                            words)
        # Filters that are used again cost work again, 13² positions × 9 × 10, but no parameters.
        layers = {layer.name: layer for layer in model.trace(model.build("golf"))}
        self.assertIs(layers["conv2"].module, layers["conv4"].module)
        self.assertEqual((layers["conv4"].parameters, layers["conv4"].multiply_adds), (0, 15210))
        self.assertEqual(sum(layer.parameters for layer in layers.values()), 570)
        self.assertIn("21,840", run("model.py", "lenet", check=0).stdout)
        self.assertIn("did you mean lenet", run("model.py", "lenett", check=2).stderr)

    def test_save_and_load(self):
        for name in model.MODELS:
            net = model.build(name, 7)
            net.mean, net.std, net.run = 0.25, 0.5, {"recipe": "x"}
            net.history = [{"train_loss": 0.5, "train_accuracy": 0.8, "val_loss": 0.4,
                            "val_accuracy": 0.9}]
            path = self.folder / "a b ü.pt"
            model.save(net, path)
            torch.load(path, weights_only=True)
            again = model.load(path)
            self.assertFalse(again.training)
            self.assertEqual((again.name, again.classes, again.mean, again.std, again.history,
                              again.run),
                             (name, 7, 0.25, 0.5, net.history, {"recipe": "x"}))
            x = torch.randn(4, 1, 28, 28)
            self.assertTrue(torch.equal(again(x), net.eval()(x)))

    def test_other_is_one_logit_more_and_stays_in_the_file(self):
        for name in ("small", "lenet"):
            net = model.build(name, 7, other=True)
            path = self.folder / "other.pt"
            model.save(net, path)
            again = model.load(path)
            self.assertEqual((again.classes, again.other), (7, True))
            x = torch.randn(4, 1, 28, 28)
            self.assertEqual(again(x).shape, (4, 8))
            self.assertTrue(torch.equal(again(x), net.eval()(x)))

    def test_older_files_have_no_other(self):
        path = self.folder / "older.pt"
        model.save(model.build("lenet", 7), path)
        content = torch.load(path, weights_only=True)
        self.assertIs(content.pop("other"), False)
        torch.save(content, path)
        self.assertIs(model.load(path).other, False)
        torch.save({**content, "other": "yes"}, path)
        self.fails(lambda: model.load(path), "'other'")


# --- Training -------------------------------------------------------------------------------------

def slow_affine(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Transform one image (H, W), a pixel at a time: where it is read from, its four neighbours."""
    size = len(image)
    out = np.zeros(image.shape)
    for row, column in itertools.product(range(size), repeat=2):
        x, y = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1  # pixel centres, -1 to 1
        u, v = matrix @ np.array([x, y, 1])
        u, v = ((u + 1) * size - 1) / 2, ((v + 1) * size - 1) / 2
        for r, c in itertools.product((math.floor(v), math.floor(v) + 1),
                                      (math.floor(u), math.floor(u) + 1)):
            if 0 <= r < size and 0 <= c < size:
                out[row, column] += image[r, c] * (1 - abs(v - r)) * (1 - abs(u - c))
    return out


class TestAugment(TestCase):
    def generator(self, seed=0):
        return torch.Generator().manual_seed(seed)

    def test_against_a_slow_reference(self):
        images = torch.from_numpy(toy_images(np.arange(4)))
        ranges = train.Augment(degrees=20, shift=3, scale=0.2, shear=0.3, crop=0.5)
        matrices = train.random_affine(4, ranges, self.generator())
        fast = train.apply_affine(images, matrices)
        self.assertEqual((fast.shape, fast.dtype), ((4, 28, 28), torch.float32))
        for image, matrix, result in zip(images, matrices, fast):
            slow = slow_affine(image.numpy().astype(float), matrix.double().numpy())
            np.testing.assert_allclose(result.numpy(), slow, atol=0.02)

    def test_each_range_by_itself(self):
        # The extremes of 20,000 random matrices are those of the range.
        def extremes(**ranges):
            m = train.random_affine(20000, train.Augment(**ranges), self.generator()).double()
            return m, m.amin(0), m.amax(0)

        m, low, high = extremes(degrees=10)
        angle = torch.atan2(m[:, 1, 0], m[:, 0, 0]).rad2deg()
        self.assertTrue(9.9 < angle.max() <= 10 and -10 <= angle.min() < -9.9
                        and abs(angle.mean()) < 0.2)
        self.assertTrue(torch.allclose(torch.linalg.det(m[:, :, :2]),
                                       torch.ones(20000, dtype=torch.float64)))
        m, low, high = extremes(shift=2)
        self.assertTrue(torch.allclose(high[:, 2], torch.tensor(2 * 2 / 28, dtype=torch.float64),
                                       atol=1e-3))
        self.assertTrue(torch.allclose(low[:, 2], torch.tensor(-2 * 2 / 28, dtype=torch.float64),
                                       atol=1e-3))
        m, low, high = extremes(scale=0.1)
        self.assertTrue(abs(low[0, 0] - 1 / 1.1) < 1e-3 and abs(high[0, 0] - 1 / 0.9) < 1e-3)
        m, low, high = extremes(shear=0.1)
        self.assertTrue(abs(high[0, 1] - 0.1) < 1e-3 and low[1, 0] == high[1, 0] == 0)
        m, low, high = extremes(crop=0.1)
        cropped = (m[:, 0, 0] - 22 / 28).abs() < 1e-6
        self.assertTrue(0.09 < cropped.double().mean() < 0.11)
        self.assertTrue((m[~cropped][:, 0, 0] == 1).all())

    def test_nothing_wraps_round(self):
        images = torch.full((1, 28, 28), 200, dtype=torch.uint8)
        shifted = train.apply_affine(images, torch.tensor([[[1, 0, 2 * 5 / 28], [0, 1, 0]]]))
        self.assertTrue((shifted[0, :, :23] - 200).abs().max() < 1e-3)
        self.assertTrue(shifted[0, :, 23:].abs().max() < 1e-3)

    def test_no_augmentation_is_the_image_itself(self):
        images = torch.from_numpy(toy_images(np.arange(3)))
        self.assertTrue(torch.equal(train.augment(images, train.Augment(), self.generator()),
                                    images))

    def test_a_seed_fixes_it(self):
        images, ranges = torch.from_numpy(toy_images(np.arange(3))), train.Augment(degrees=9)
        a, b, c = (train.augment(images, ranges, self.generator(s)) for s in (1, 1, 2))
        self.assertTrue(torch.equal(a, b) and not torch.equal(a, c))


class TestSchedule(TestCase):
    def rates(self, recipe, steps):
        return [train.learning_rate(recipe, step, steps) for step in range(recipe.epochs * steps)]

    def torch_rates(self, schedule, optimiser, count):
        rates = []
        for _ in range(count):
            rates += schedule.get_last_lr()
            optimiser.step()
            schedule.step()
        return rates

    def test_step_against_torch(self):
        recipe = train.Recipe("", "lenet", epochs=23, lr=0.01, schedule="step", step_size=5)
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], recipe.lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=5, gamma=0.1)
        expected = np.repeat(self.torch_rates(schedule, optimiser, recipe.epochs), 3)
        np.testing.assert_allclose(self.rates(recipe, 3), expected, rtol=1e-12)

    def test_one_cycle_against_torch(self):
        """torch's OneCycleLR rises and falls either straight or as a cosine; ours rises as the one
        and falls as the other. Its first and last rates are nothing, which ours leaves out."""
        recipe = train.Recipe("", "lenet", epochs=10, lr=0.02, schedule="one-cycle")
        rates = self.rates(recipe, 100)
        top = 200  # of 1,001 rates apart, the first fifth
        for anneal, part in (("linear", slice(0, top - 1)), ("cos", slice(top, None))):
            optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], recipe.lr)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, recipe.lr, total_steps=1002, anneal_strategy=anneal,
                pct_start=(0.2 * 1001 + 1) / 1002, div_factor=1e12, final_div_factor=1,
                cycle_momentum=False)
            expected = self.torch_rates(schedule, optimiser, 1001)[1:]
            np.testing.assert_allclose(rates[part], expected[part], rtol=1e-6, atol=1e-12)

    def test_constant(self):
        self.assertEqual(set(self.rates(train.Recipe("", "lenet", epochs=3, lr=0.5), 4)), {0.5})


class TestTemperature(TestCase):
    def test_what_was_multiplied_is_divided(self):
        """Labels drawn from the probabilities of some logits fit these best, not 0.4 times them."""
        generator = torch.Generator().manual_seed(0)
        logits = 4 * torch.randn(5000, 10, generator=generator)
        labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        scores = (0.4 * logits).log_softmax(1)
        temperature = evaluate.best_temperature(scores, labels)
        self.assertAlmostEqual(temperature, 0.4, delta=0.03)
        before = evaluate.Result(scores, labels)
        after = evaluate.Result((scores / temperature).log_softmax(1), labels)
        self.assertLess(after.calibration_error, before.calibration_error / 2)

    def test_a_run_with_smoothed_labels_is_calibrated(self):
        """The weights of the best epoch, but for the last layer, which is divided by one number."""
        labels = np.arange(600) % 10
        images = torch.from_numpy(toy_images(labels))
        labels = torch.from_numpy(labels)
        digits = idx_data.Digits(images, labels, images[:20], labels[:20])
        recipe = replace(train.RECIPES["quick"], batch_size=64)
        run = train.start(recipe, digits, device="cpu", precision="float32")
        for _ in train.epochs(run):
            pass
        best = run.best["linear2.weight"].clone()
        ratio = train.finish(run).state_dict()["linear2.weight"] / best
        self.assertLess(ratio.max() - ratio.min(), 1e-5)
        self.assertNotAlmostEqual(ratio.mean().item(), 1, 2)


class TestEarlyStopping(TestCase):
    def test_a_written_out_sequence(self):
        stopping = train.EarlyStopping(patience=2)
        for accuracy, loss, better, stop in [(0.90, 0.5, True, False), (0.95, 0.4, True, False),
                                             (0.95, 0.5, False, False), (0.95, 0.3, True, False),
                                             (0.94, 0.1, False, False), (0.95, 0.3, False, True)]:
            self.assertEqual((stopping.better((accuracy, -loss)), stopping.stop), (better, stop))

    def test_no_patience_never_stops(self):
        stopping = train.EarlyStopping(patience=0)
        for _ in range(50):
            stopping.better((0.5, 0.5))
        self.assertFalse(stopping.stop)

    def test_not_a_number_is_never_better(self):
        stopping = train.EarlyStopping(patience=2)
        self.assertTrue(stopping.better((0.1, -2.0)))
        self.assertFalse(stopping.better((0.1, math.nan)))


class TestTrain(ToyTestCase):
    """Whole runs on a small data set, in processes of their own."""

    def train(self, *arguments, check=0, **more):
        return run("train.py", "--data", self.data, *arguments, cwd=self.folder, check=check,
                   **more)

    def here(self, *arguments, **more):
        return call(train, "--data", self.data, *arguments, cwd=self.folder, **more)

    def weights(self, name="model.pt"):
        return model.load(self.folder / name).state_dict()

    def test_it_learns_and_says_what_it_did(self):
        done = self.train("--epochs", 6, "--batch-size", 32, "--json", "--val-fraction", 0.1)
        result = json.loads(done.stdout)
        self.assertGreater(result["test_accuracy"], 0.9)
        self.assertEqual((result["recipe"], result["model"], result["seed"], result["epochs"],
                          result["checkpoint"]),
                         ("small", "small", 0, 6, "model.pt"))
        net = model.load(self.folder / "model.pt")
        self.assertEqual(result["parameters"], model.parameters(net))
        self.assertEqual(len(net.history), 6)
        best = net.history[result["best_epoch"] - 1]
        self.assertEqual(best["val_loss"], min(row["val_loss"] for row in net.history))
        self.assertEqual(best["val_accuracy"], result["val_accuracy"])
        digits = idx_data.load_digits(self.data)
        again = evaluate.evaluate(net, digits.test_images, digits.test_labels)
        self.assertEqual(again.accuracy, result["test_accuracy"])
        training, _ = idx_data.split(600, 0.1, 0)
        mean, _ = idx_data.mean_std(digits.train_images[training])
        self.assertEqual((round(net.mean, 6), net.run["data"]), (round(mean, 6), digits.hashes()))
        for key in ("recipe", "command", "settings", "versions", "machine", "data", "result"):
            self.assertTrue(net.run[key], key)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["model.pt"])

    def test_what_a_run_learned_from_is_given_back_when_it_is_over(self):
        """At once: nothing of the run holds on to it. (Torch keeps something of the very first.)"""
        self.addCleanup(gc.enable)
        for _ in range(2):
            gc.collect()
            gc.disable()
            begun = train.start(train.RECIPES["lenet"], some_digits(), 0, "cpu", "float32")
            train.train_epoch(begun)
            images = weakref.ref(begun.images)
            del begun
        self.assertIsNone(images())

    def test_the_validation_figures_are_those_of_the_held_out_images(self):
        self.here("--recipe", "tiny2k", "--epochs", 2, "--val-fraction", 0.2, "--seed", 3)
        net, digits = model.load(self.folder / "model.pt"), idx_data.load_digits(self.data)
        index = idx_data.split(600, 0.2, 3)[1]
        result = evaluate.evaluate(net, digits.train_images[index], digits.train_labels[index])
        best = max(row["epoch"] for row in net.history if row["best"]) - 1
        self.assertEqual(result.accuracy, net.history[best]["val_accuracy"])
        self.assertAlmostEqual(result.loss, net.history[best]["val_loss"], 4)

    def test_same_seed_same_weights(self):
        digits = idx_data.load_digits(self.data)
        for name in ("small", "dropout", "robust"):  # every recipe: support/test_checkpoint.py
            short = replace(train.RECIPES[name], epochs=1, batch_size=128)
            a, b, c = (train.train(short, digits, seed, "cpu", "float32").state_dict()
                       for seed in (5, 5, 6))
            self.assertTrue(all(torch.equal(a[key], b[key]) for key in a), name)
            self.assertFalse(all(torch.equal(a[key], c[key]) for key in a), name)

    def test_an_epoch_is_that_of_a_textbook(self):
        digits = idx_data.load_digits(self.data)
        recipe = train.Recipe("", "lenet", batch_size=32)
        run = train.start(recipe, digits, seed=3, device="cpu", precision="float32")
        net = copy.deepcopy(run.net)
        order = torch.randperm(len(run.labels), generator=torch.Generator().manual_seed(3))
        loss, accuracy = train.train_epoch(run)

        optimiser = torch.optim.Adam(net.parameters(), lr=0.001)
        losses, correct = [], 0
        for i in range(0, len(order), 32):
            index = order[i : i + 32]
            x = (run.images[index].unsqueeze(1) / 255 - net.mean) / net.std
            logits = net(x)
            batch_loss = F.cross_entropy(logits, run.labels[index])
            optimiser.zero_grad()
            batch_loss.backward()
            optimiser.step()
            losses += [batch_loss.item()] * len(index)
            correct += (logits.argmax(1) == run.labels[index]).sum().item()

        self.assertAlmostEqual(loss, np.mean(losses), 4)
        self.assertAlmostEqual(accuracy, correct / len(order), delta=2.5 / len(order))
        for ours, theirs in zip(run.net.parameters(), net.parameters()):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)

    def test_it_counts_the_last_short_batch(self):
        digits = idx_data.load_digits(self.data)
        recipe = train.Recipe("", "lenet", batch_size=100, lr=1e-30)  # nothing is learned
        run = train.start(recipe, digits, device="cpu", precision="float32")
        run.images, run.labels = run.images[:250], run.labels[:250]
        loss, accuracy = train.train_epoch(run)
        expected = evaluate.evaluate(run.net, run.images, run.labels)
        self.assertAlmostEqual(loss, expected.loss, 5)
        self.assertEqual(accuracy, expected.accuracy)

    def test_a_last_batch_of_one_image(self):
        """It has no variance, by which batch normalisation would divide."""
        digits = idx_data.load_digits(self.data)
        for name in train.RECIPES:
            recipe = replace(train.RECIPES[name], forms=0, composed=0)
            run = train.start(recipe, digits, device="cpu", precision="float32")
            run.images = run.images[: recipe.batch_size + 1]
            run.labels = run.labels[: recipe.batch_size + 1]
            train.train_epoch(run)
            weights = run.net.state_dict().values()
            self.assertTrue(all(tensor.isfinite().all() for tensor in weights), name)

    def test_from_another_program(self):
        """One line trains; nothing is written, nothing is printed."""
        code = ("import train, idx_data; digits = idx_data.load_digits('data'); "
                "net = train.train(train.RECIPES['quick'], digits); assert len(net.history) == 1")
        write_toy(self.folder / "data")
        done = subprocess.run([sys.executable, "-c", code], cwd=self.folder, text=True,
                              capture_output=True, env={**os.environ, "PYTHONPATH": str(HERE)})
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["data"])

    def test_the_test_set_chooses_nothing(self):
        """Other test images and labels: the same weights, to the bit."""
        digits = idx_data.load_digits(self.data)
        other = replace(digits, test_images=255 - digits.test_images,
                        test_labels=digits.test_labels.flip(0))
        recipe = replace(train.RECIPES["small"], epochs=2, batch_size=64)
        a = train.train(recipe, digits, device="cpu").state_dict()
        b = train.train(recipe, other, device="cpu").state_dict()
        self.assertTrue(all(torch.equal(a[key], b[key]) for key in a))

    def test_the_validation_images_teach_nothing(self):
        """Other pixels in them: the first epoch, and the mean and standard deviation, stay. (With
        label smoothing they choose the temperature.)"""
        digits = idx_data.load_digits(self.data)
        recipe = replace(train.RECIPES["small"], epochs=1, batch_size=64, label_smoothing=0)
        _, held_out = idx_data.split(len(digits.train_labels), recipe.val_fraction, 0)
        images = digits.train_images.clone()
        images[held_out] = 255 - images[held_out]
        other = replace(digits, train_images=images)
        a, b = (train.train(recipe, data, device="cpu") for data in (digits, other))
        self.assertEqual((a.mean, a.std), (b.mean, b.std))
        self.assertNotEqual(a.history[0]["val_loss"], b.history[0]["val_loss"])
        weights = b.state_dict()
        self.assertTrue(all(torch.equal(tensor, weights[key])
                            for key, tensor in a.state_dict().items()))

    def test_the_schedule_in_a_run(self):
        self.here("--recipe", "lenet", "--epochs", 5, "--schedule", "step", "--step-size", 2,
                  "--gamma", 0.5, "--lr", 0.004)
        rates = [row["lr"] for row in model.load(self.folder / "model.pt").history]
        self.assertEqual(rates, [0.004, 0.004, 0.002, 0.002, 0.001])

    def test_seeds(self):
        out, err = self.here("--recipe", "lenet", "--epochs", 1, "--seeds", 2, "--seed", 4,
                             "--json", "--out", "x/y.pt")
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([line["seed"] for line in lines], [4, 5])
        self.assertEqual([line["checkpoint"] for line in lines],
                         [str(Path("x/y-4.pt")), str(Path("x/y-5.pt"))])
        mean = np.mean([line["test_accuracy"] for line in lines])
        self.assertIn(f"2 seeds: test accuracy {mean:.2%} ±", err)

    def test_nothing_learned_replaces_nothing(self):
        """A rate of almost nothing gives one answer to everything; also where a model is there."""
        before = self.file(b"a model", "model.pt").read_bytes()
        arguments = "--recipe", "lenet", "--epochs", 1, "--lr", 1e-12
        out, _ = self.here(*arguments, "--json", status=1)
        self.assertIsNone(json.loads(out)["checkpoint"])
        out, _ = self.here(*arguments, status=1)
        self.assertIn("no better than always answering the most frequent class: not saved", out)
        self.assertEqual([(path.name, path.read_bytes()) for path in self.folder.iterdir()],
                         [("model.pt", before)])

    def test_fewer_images_than_in_a_batch(self):
        """All of them are a batch; but a number that was given is an error: test_wrong_settings."""
        data = write_toy(self.folder / "few", 40, 20, classes=2)
        out, _ = call(train, "--data", data, "--recipe", "lenet", "--epochs", 15, "--lr", 0.01,
                      "--val-fraction", 0.5, cwd=self.folder)
        self.assertIn("batches of 20 images: there are no more to train on", out)
        self.assertEqual(len(model.load(self.folder / "model.pt").history), 15)

    def test_patience_stops(self):
        out, _ = self.here("--recipe", "lenet", "--epochs", 30, "--lr", 1e-12, "--patience", 2,
                           "--json", status=1)  # nothing was learned
        result = json.loads(out)
        self.assertLess(result["epochs"], 30)
        self.assertEqual(result["epochs"], result["best_epoch"] + 2)

    def kept(self, labels, seed=0) -> Path:
        """A folder of drawings as the page to draw on keeps them: of 0 as a triangle, and of other
        digits as they are."""
        rng = np.random.default_rng(seed)
        corners = np.array([(1, 0), (0, 0.3), (1, 0.6), (1, 0)])
        for i, label in enumerate(labels):
            page = np.pad(written_digit(label, 80, 7), 20)
            if label == 0:
                points = 30 + 80 * (corners + rng.normal(0, 0.04, (4, 2)))
                page = drawn((140, 110), points, 7)
            png.write_png(self.folder / f"drawn{seed}/train/{label}/{i}.png", place(draw(page)))
        return self.folder / f"drawn{seed}"

    def test_from_a_checkpoint_it_learns_some_more_and_forgets_little(self):
        base = infer.own_finder()
        zeros = idx_data.load_digits(self.kept([0] * 30 + [1], seed=1)).train_images[:30]
        before = evaluate.predict_all(base, zeros).argmax(1)
        self.assertLess((before == 0).float().mean(), 0.5)
        folder = self.kept([0] * 20 + list(range(1, 10)) * 2)
        out, _ = self.here("--from", HERE / "pretrained.pt", "--json", "--data", folder,
                           "--epochs", 10, "--lr", 0.0004, "--out", "mine.pt")
        result = json.loads(out)
        self.assertEqual((result["recipe"], result["model"], result["test_accuracy"]),
                         ("fine-tuning", "robust", None))
        mine = model.load(self.folder / "mine.pt")
        after = evaluate.predict_all(mine, zeros).argmax(1)
        self.assertGreater((after == 0).float().mean(), 0.8)
        self.assertEqual((mine.classes, mine.other, mine.mean, mine.std),
                         (10, True, base.mean, base.std))
        self.assertEqual(len(mine.history), 10)
        weights = mine.state_dict()
        for name, tensor in base.state_dict().items():
            if "running" in name:  # what batch normalisation knows
                self.assertTrue(torch.equal(tensor, weights[name]), name)
        # It still finds digits, and tells them from what is none.
        rows, = infer.read_pictures(mine, mine, [picture(written("2026"))[..., :3]])
        self.assertEqual([reading.digit for row in rows for reading in row], [2, 0, 2, 6])
        images, labels = (torch.from_numpy(part) for part in
                          examples(self.digits.test_images.numpy(),
                                   self.digits.test_labels.numpy(), range(20), 5))
        others = images[labels == 10]
        was, now = (evaluate.predict_all(net, others).argmax(1) == 10 for net in (base, mine))
        self.assertGreater(now.sum(), 0.9 * was.sum())

    def test_from_a_checkpoint_that_does_not_fit(self):
        self.here("--recipe", "lenet", "--epochs", 1, "--out", "ten.pt")
        fit = ("--from", "ten.pt", "--epochs", 1)
        done = self.train(*fit, "--recipe", "quick", check=2)
        self.error_line(done, "ten.pt holds the network lenet", "trains quick", "leave --recipe")
        twelve = write_toy(self.folder / "twelve", 60, 12, classes=12)
        self.fails(lambda: self.here(*fit, "--data", twelve), "knows 10 classes", "twelve has 12",
                   kind=UsageError)
        self.fails(lambda: self.here("--from", "none.pt"), "none.pt", kind=FileNotFoundError)
        self.here(*fit, "--out", "more.pt")
        self.fails(lambda: self.here("--from", "more.pt", "--epochs", 1, "--out", "more.pt",
                                     "--resume"), "from ten.pt, now more.pt", kind=UsageError)
        net = model.load(self.folder / "more.pt")
        self.assertEqual((net.name, net.run["settings"]["from"]), ("lenet", "ten.pt"))

    def test_wrong_settings(self):
        def message(*arguments):
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    train.main(["--data", str(self.data), *map(str, arguments)])
            except UsageError as error:
                return str(error)
            self.fail(f"{arguments} went through")

        os.chdir(self.folder)
        self.addCleanup(os.chdir, HERE)
        for arguments, *words in [
                (["--recipe", "smal"], "smal", "did you mean small"), (["--device", "gpu"], "gpu"),
                (["--device", "cuda:99"], "cuda:99"), (["--precision", "half"], "half"),
                (["--epochs", 0], "--epochs", "at least 1"), (["--epochs", "x"], "--epochs", "int"),
                (["--batch-size", 0], "--batch-size"),
                (["--batch-size", 10**6], "--batch-size", "540"), (["--lr", 0], "--lr"),
                (["--lr", "nan"], "--lr", "nan"), (["--lr", "inf"], "--lr"),
                (["--schedule", "stp"], "--schedule", "did you mean step"),
                (["--step-size", 0], "--step-size"), (["--gamma", 2], "--gamma"),
                (["--val-fraction", 0], "--val-fraction"),
                (["--val-fraction", 1], "--val-fraction"),
                (["--val-fraction", 1e-9], "--val-fraction", "leaves 0"),
                (["--patience", -1], "--patience"), (["--seed", -1], "--seed"),
                (["--seeds", 0], "--seeds"), (["--bogus"], "--bogus"),
                (["--out", self.folder], "--out", "folder")]:
            if "--recipe" not in arguments:
                arguments = ["--recipe", "lenet", *arguments]
            error = message(*arguments)
            self.assertNotIn("\n", error)
            for word in map(str, words):
                self.assertIn(word, error)
        self.assertEqual(list(self.folder.iterdir()), [])
        done = self.train("--lr", "-1", check=2)
        self.assertEqual((done.stdout, done.stderr),
                         ("", "error: --lr must be more than 0, not -1.0\n"))

    def test_list(self):
        text, _ = call(train, "--list")
        for name, recipe in train.RECIPES.items():
            line = next(line for line in text.splitlines() if line.startswith(name + " "))
            net = model.build(recipe.model, other=recipe.composed > 0)
            self.assertIn(f"{model.parameters(net):,}", line)


# --- Figures --------------------------------------------------------------------------------------

class TestResult(unittest.TestCase):
    def test_confusion_is_counted(self):
        result = some_result(7)
        counted = [[0] * 7 for _ in range(7)]
        for true, row in zip(result.labels.tolist(), result.log_probabilities.tolist()):
            counted[true][row.index(max(row))] += 1
        self.assertEqual(result.confusion.tolist(), counted)
        self.assertEqual(result.errors, 300 - sum(counted[k][k] for k in range(7)))
        worst = evaluate.frequent_mistakes(result.confusion, 5)
        self.assertEqual([count for *_, count in worst], sorted(
            (counted[i][j] for i in range(7) for j in range(7) if i != j), reverse=True)[:5])
        self.assertTrue(all(counted[true][predicted] == n for true, predicted, n in worst))

    def test_loss_and_interval_by_hand(self):
        probabilities = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]])
        result = evaluate.Result(probabilities.log(), torch.tensor([0, 1, 1]))
        self.assertAlmostEqual(result.loss, -math.log(0.5 * 0.25 * 0.75) / 3, places=6)
        # Agresti and Coull's rule of thumb: two errors and two correct answers are added.
        result = evaluate.Result(torch.tensor([[0.9, 0.1]] * 100).log(),
                                 torch.tensor([0] * 98 + [1] * 2))
        self.assertAlmostEqual(result.half_interval, 1.96 * math.sqrt(4 * 100 / 104**3))

    def test_scores_by_hand(self):
        # Two classes: 3 zeros, of which 2 are found, 1 one, found; a third class never occurs.
        confusion = torch.tensor([[2, 1, 0], [0, 1, 0], [0, 0, 0]])
        expected = [[1, 2 / 3, 0.8], [1 / 2, 1, 2 / 3], [0, 0, 0]]
        torch.testing.assert_close(evaluate.class_scores(confusion),
                                   torch.tensor(expected).double())

    def test_calibration_error_by_hand(self):
        # 0.9 in the 14th of 15 bins, correct once of twice; 0.6 in the 9th, correct:
        # (2|0.5-0.9| + |1-0.6|) / 3
        probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
        result = evaluate.Result(probabilities.log(), torch.tensor([0, 1, 1]))
        self.assertAlmostEqual(result.calibration_error, (0.8 + 0.4) / 3, places=6)
        certain = evaluate.Result(torch.tensor([[0.0, -200.0]]), torch.tensor([0]))
        self.assertEqual(certain.calibration_error, 0)

    def test_mistakes_are_worst_first(self):
        probabilities = torch.tensor([[0.4, 0.6], [0.9, 0.1], [0.01, 0.99], [0.2, 0.8]])
        result = evaluate.Result(probabilities.log(), torch.tensor([0, 0, 0, 0]))
        self.assertEqual(result.mistakes, [2, 3, 0])
        number, predicted, true, probability = result.answers(result.mistakes)[0]
        self.assertEqual((number, predicted, true), (2, 1, 0))
        self.assertAlmostEqual(probability, 0.99, places=5)

    def test_ensemble_is_the_mean_of_probabilities(self):
        digits = some_digits()
        parts = [evaluate.predict(some_net(seed=seed), digits.test_images) for seed in range(3)]
        mean = evaluate.mean_probabilities(parts)
        for i in range(0, 40, 7):
            for k in range(10):
                slow = sum(math.exp(part[i, k].item()) for part in parts) / 3
                self.assertAlmostEqual(math.exp(mean[i, k].item()), slow, places=5)

    def test_shifts_do_not_wrap(self):
        image = torch.arange(1, 13).byte().reshape(1, 3, 4)
        for across in (-1, 0, 1):
            for down in (-1, 0, 1):
                slow = torch.zeros(1, 3, 4, dtype=torch.uint8)
                for y in range(3):
                    for x in range(4):
                        if 0 <= y + down < 3 and 0 <= x + across < 4:
                            slow[0, y + down, x + across] = image[0, y, x]
                self.assertTrue(torch.equal(evaluate.shifted(image, down, across), slow))

    def test_tta_is_the_mean_over_nine_shifts(self):
        net, images = some_net(), some_digits(each=1).test_images
        total = torch.zeros(10, 10)
        for across in (-1, 0, 1):
            for down in (-1, 0, 1):
                wide = torch.zeros(10, 30, 30, dtype=torch.uint8)
                wide[:, 1 + down : 29 + down, 1 + across : 29 + across] = images
                x = idx_data.standardise(wide[:, 1:29, 1:29], net.mean, net.std)
                with torch.inference_mode():
                    total += net(x).softmax(1)
        fast = evaluate.evaluate(net, images, torch.arange(10), tta=True)
        torch.testing.assert_close(fast.log_probabilities.exp(), total / 9, atol=1e-5, rtol=0)

    def test_a_network_in_training_is_evaluated_without_dropout_and_left_in_training(self):
        net, digits = some_net("dropout").train(), some_digits()
        first = evaluate.predict(net, digits.test_images)
        self.assertTrue(net.training)
        self.assertTrue(torch.equal(first, evaluate.predict(net.eval(), digits.test_images)))

    def test_other_is_left_out_and_the_rest_renormalised(self):
        net, digits = some_net(other=True), some_digits()
        everything = evaluate.predict_all(net, digits.test_images).exp()
        self.assertEqual(everything.shape, (40, 11))
        classes = everything[:, :10] / everything[:, :10].sum(1, keepdim=True)
        torch.testing.assert_close(evaluate.predict(net, digits.test_images).exp(), classes)
        result = evaluate.evaluate(net, digits.test_images, digits.test_labels)
        self.assertEqual(result.confusion.shape, (10, 10))
        self.assertEqual(result.confusion.sum(), 40)
        shifted = evaluate.evaluate(net, digits.test_images, digits.test_labels, tta=True)
        self.assertEqual(shifted.confusion.shape, (10, 10))

    def test_others_recognised(self):
        """Networks whose last bias makes everything *other*, or nothing."""
        labels = np.arange(30) % 10
        images = torch.from_numpy(toy_images(labels))
        _, known = examples(images.numpy(), labels, range(3), evaluate.NEW_SEED)
        net = some_net(other=True)
        for bias, share in ((100, 1), (-100, 0)):
            with torch.no_grad():
                list(net.children())[-1].bias[10] = bias
            with mock.patch.object(evaluate, "COMPOSED", 3):
                count, found = evaluate.others_recognised(net, images, torch.from_numpy(labels))
            self.assertEqual((count, found), ((known == 10).sum(), share * count))

    @needs_mnist
    def test_disputed_labels_of_mnist(self):
        digits = mnist()
        self.assertTrue(digits.is_mnist())
        self.assertEqual(len(evaluate.DISPUTED), 15)
        guess = torch.full((10_000, 10), 0.01)
        guess[torch.arange(10_000), digits.test_labels] = 0.91
        for i in evaluate.DISPUTED:
            guess[i] = guess[i].roll(1)
        result = evaluate.Result(guess.log(), digits.test_labels)
        self.assertEqual(set(result.mistakes), evaluate.DISPUTED)
        rows = evaluate.mistake_table(result, evaluate.DISPUTED)
        self.assertEqual([row[0][-1] for row in rows[1:]], ["*"] * 10)
        drawn = evaluate.draw(some_net(), result, digits.test_images, evaluate.DISPUTED)
        self.assertEqual(drawn["mistakes"].count("stroke-dasharray"), 15)
        self.assertIn("(15)", drawn["mistakes"])


class TestEvaluate(TestCase):
    """evaluate.py at the command line, on two untrained networks."""

    def setUp(self):
        super().setUp()
        self.digits = some_digits(each=8)
        write_digits(self.digits, self.folder / "data")
        self.nets = [some_net(seed=0), some_net(seed=1)]
        for seed, net in enumerate(self.nets):
            model.save(net, self.folder / f"{seed}.pt")
        self.results = [evaluate.evaluate(net, self.digits.test_images, self.digits.test_labels)
                        for net in self.nets]

    def evaluate(self, *arguments) -> tuple[str, str]:
        return call(evaluate, *arguments, "--device", "cpu", cwd=self.folder)

    def test_json_alone_and_no_report_unless_asked(self):
        out, _ = self.evaluate("0.pt", "--json")
        self.assertFalse((self.folder / "report").exists())
        found, result = json.loads(out), self.results[0]
        self.assertEqual(found["confusion"], result.confusion.tolist())
        self.assertEqual([found[key] for key in ("checkpoints", "split", "images", "errors")],
                         [["0.pt"], "test", 80, result.errors])
        self.assertAlmostEqual(found["loss"], result.loss, places=6)
        self.assertAlmostEqual(found["accuracy"], result.accuracy)
        self.assertEqual(found["parameters"], model.parameters(self.nets[0]))
        self.assertIsNone(found["report"])
        out, _ = self.evaluate("0.pt", "--json", "--report", "there")
        self.assertEqual(json.loads(out)["report"], "there")
        self.assertTrue((self.folder / "there" / "index.html").exists())

    def test_others(self):
        """Told of a network that knows them, on the data that it learned from."""
        write_toy(self.folder / "data", 80, 20)
        hashes = idx_data.load_digits(self.folder / "data").hashes()
        model.save(some_net(other=True, data=hashes), self.folder / "other.pt")
        with mock.patch.object(evaluate, "COMPOSED", 3):
            found = json.loads(self.evaluate("other.pt", "--json")[0])
            text, _ = self.evaluate("other.pt")
        others = found["others"]
        self.assertEqual(len(found["confusion"]), 10)
        self.assertTrue(0 <= others["recognised"] <= others["images"])
        self.assertIn(f"others: {others['recognised']} of {others['images']} recognised", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        model.save(some_net(other=True), self.folder / "other.pt")  # of other data
        self.assertNotIn("others", self.evaluate("other.pt", "--json")[0])
        self.assertNotIn("others", self.evaluate("0.pt", "--json")[0])

    def test_ensemble(self):
        out, _ = self.evaluate("0.pt", "1.pt", "--json")
        found = json.loads(out)
        total = sum(evaluate.predict(net, self.digits.test_images).exp().double()
                    for net in self.nets)
        errors = int((total.argmax(1) != self.digits.test_labels).sum())
        self.assertEqual((found["errors"], len(found["members"])), (errors, 2))
        for member, result in zip(found["members"], self.results):
            self.assertEqual(member["errors"], result.errors)
        model.save(some_net(classes=12), self.folder / "12.pt")
        self.fails(lambda: self.evaluate("0.pt", "12.pt"), "knows 12", kind=UsageError)

    def test_the_text_fits_80_columns(self):
        for classes in (10, 47):
            write_digits(some_digits(classes, each=8), self.folder / "data")
            model.save(some_net(classes=classes, data={"t10k": "abc123"}), self.folder / "a.pt")
            out, _ = self.evaluate("a.pt", "a.pt")
            self.assertLessEqual(max(map(len, out.splitlines())), 80)

    def test_default_checkpoint(self):
        model.save(self.nets[0], self.folder / "model.pt")
        out, err = self.evaluate("--json")
        self.assertIn("checkpoint model.pt", err)
        self.assertEqual(json.loads(out)["checkpoints"], ["model.pt"])

    def test_splits_of_training_are_those_of_the_run(self):
        run = some_net(data=self.digits.hashes()).run  # with a seed of 7, and a quarter held out
        images, labels = evaluate.pick_split(self.digits, "val", run)
        training, validation = idx_data.split(80, 0.25, 7)
        self.assertTrue(torch.equal(labels, self.digits.train_labels[validation]))
        self.assertTrue(torch.equal(images, self.digits.train_images[validation]))
        images, labels = evaluate.pick_split(self.digits, "train", run)
        self.assertTrue(torch.equal(labels, self.digits.train_labels[training]))
        self.fails(lambda: evaluate.pick_split(some_digits(each=9), "val", run), "other data",
                   kind=UsageError)
        self.fails(lambda: evaluate.pick_split(self.digits, "val", {}), "does not say",
                   kind=UsageError)

    def test_logits_without_bounds_are_refused(self):
        """Each weight is one that a checkpoint may hold; it is their product that is not."""
        net = self.nets[0]
        with torch.no_grad():
            for weights in net.parameters():
                weights.fill_(1e8)
        model.save(net, self.folder / "large.pt")
        for more in ((), ("--json",)):
            self.fails(lambda: self.evaluate("large.pt", *more), "large.pt: expected finite logits",
                       "small")
        self.assertFalse((self.folder / "report").exists())

    def test_a_folder_that_is_no_report_s(self):
        """Nothing in it is replaced, and nothing is measured before that is said."""
        for name, more in (("index.html", ()), ("curves.svg", ("--pictures", "curves"))):
            path = self.file(b"<p>my own", f"site/{name}")
            self.fails(lambda: self.evaluate("none.pt", "--report", "site", *more), "--report site",
                       name, "not that of a report", kind=UsageError)
            self.assertEqual(path.read_bytes(), b"<p>my own")
            path.unlink()
        self.file(b"<p>my own", "site/other.html")
        for _ in range(2):  # a report's own files are replaced
            self.evaluate("0.pt", "--report", "site")
        self.assertEqual((self.folder / "site/other.html").read_bytes(), b"<p>my own")

    def test_wrong_settings(self):
        for arguments, words in ((("--pictures", "filter"), "did you mean filters"),
                                 (("--split", "vla"), "did you mean val")):
            self.fails(lambda: self.evaluate("0.pt", *arguments), words, kind=UsageError)


# --- Which candidates are digits ------------------------------------------------------------------

def judged(digit: int, probability: float, box, dark=True, cut_off=False) -> Candidate:
    """A candidate that a network has judged: `digit` with this probability, the rest is *other*."""
    made = Candidate(np.zeros((28, 28), np.uint8), np.array(box, float), cut_off, dark,
                     np.zeros((2, 2), np.float32))
    made.probabilities = np.zeros(11, np.float32)
    made.probabilities[digit] = probability
    made.probabilities[10] = 1 - probability
    return made


def in_a_row(digits: str, top=10.0, left=10.0, slope=0.0) -> list[Candidate]:
    """Judged candidates 40 pixels high, 30 apart, all certain."""
    row = []
    for i, digit in enumerate(digits):
        y, x = top + slope * 30 * i, left + 30 * i
        row.append(judged(int(digit), 0.99, [y, x, y + 40, x + 20]))
    return row


class TestChoose(TestCase):
    """Candidates made up by hand: which are chosen, in which order."""

    def read(self, candidates) -> str:
        rows = [[str(candidate.probabilities[:10].argmax()) for candidate in row]
                for row in infer.in_rows(candidates)]
        return "/".join("".join(row) for row in rows)

    def test_the_whole_digit_not_its_fragment(self):
        whole = judged(4, 0.97, [0, 0, 80, 60])
        stroke = judged(1, 0.99, [40, 40, 75, 50])
        self.assertEqual(infer.choose([stroke, whole]), [whole])

    def test_the_best_of_all_is_an_answer_though_unsure(self):
        unsure = judged(3, 0.4, [0, 0, 9, 9])
        self.assertEqual(infer.choose([judged(5, 0.3, [20, 20, 29, 29]), unsure]), [unsure])

    def test_no_digit(self):
        self.assertEqual(infer.choose([judged(3, 0.1, [0, 0, 9, 9])]), [])
        self.assertEqual(infer.choose([]), [])

    def test_a_speck_and_the_other_ink_are_no_part_of_a_number(self):
        digits = in_a_row("20")
        speck = judged(1, 0.99, [10, 90, 16, 92])
        light = judged(1, 0.98, [10, 100, 50, 110], dark=False)
        self.assertCountEqual(infer.choose([speck, light, *digits]), digits)

    def test_what_runs_out_of_the_picture_is_no_part_of_a_number(self):
        digits = in_a_row("20")
        self.assertCountEqual(
            infer.choose([judged(7, 0.98, [10, 70, 50, 90], cut_off=True), *digits]), digits)

    def test_what_another_pen_drew_is_no_part_of_a_number(self):
        digits = in_a_row("20")
        line = judged(1, 0.98, [10, 90, 50, 100])
        for candidate, wide in ((digits[0], 6), (digits[1], 5), (line, 1)):
            candidate.strength = np.zeros((40, 20), np.float32)  # of the picture's pixels
            candidate.strength[:, 2 : 2 + wide] = 1
        self.assertAlmostEqual(digits[0].pen, 6, delta=1)
        self.assertCountEqual(infer.choose([line, *digits]), digits)

    def test_beside_digits_less_is_enough_to_be_one(self):
        digits = in_a_row("20")
        sloppy = judged(7, 0.1, [10, 70, 50, 90])
        alone = judged(7, 0.1, [10, 170, 50, 190])
        low = judged(7, 0.1, [40, 95, 50, 100])
        chosen = infer.choose([sloppy, alone, low, *digits])
        self.assertCountEqual(chosen, digits)
        self.assertCountEqual(infer.with_company([sloppy, alone, low, *digits], chosen),
                              [*digits, sloppy])
        unsure = judged(3, 0.4, [10, 10, 50, 30])  # of which nobody knows whether it is a digit
        self.assertEqual(infer.with_company([unsure, sloppy], [unsure]), [unsure])
        self.assertEqual(infer.with_company([sloppy], []), [])

    def test_single(self):
        large = judged(5, 0.97, [0, 0, 90, 50])
        self.assertEqual(infer.choose([*in_a_row("123", left=80), large], single=True), [large])

    def test_a_piece_and_a_line_across_the_picture_are_doubtful(self):
        for box, cut_off, cut_from, doubted in (([10, 10, 50, 18], False, None, False),
                                                ([0, 10, 50, 18], True, None, True),
                                                ([0, 10, 50, 40], True, None, False),
                                                ([10, 10, 50, 40], False, judged(0, 0.1, [0] * 4),
                                                 True)):
            digit = judged(1, 0.99, box, cut_off=cut_off)
            digit.cut_from = cut_from
            infer.doubt([digit], [digit])
            self.assertEqual(digit.certainty < 0.9, doubted)
            self.assertAlmostEqual(digit.probabilities.sum(), 1, places=6)

    def test_unread_ink_beside_a_digit_makes_it_doubtful(self):
        for unread, doubted in ((judged(0, 0.1, [10, 35, 50, 60]), True),
                                (judged(0, 0.1, [10, 300, 50, 325]), False),  # far away
                                (judged(0, 0.1, [40, 35, 48, 40]), False)):  # too small
            digit, = in_a_row("7")
            infer.doubt([digit, unread], [digit])
            self.assertEqual(digit.certainty < 0.98, doubted)
            self.assertAlmostEqual(digit.probabilities.sum(), 1, 5)

    def test_rows_from_top_to_bottom_each_from_left_to_right(self):
        digits = in_a_row("12") + in_a_row("345", top=80) + in_a_row("9", top=150, left=70)
        np.random.default_rng(0).shuffle(digits)
        self.assertEqual(self.read(digits), "12/345/9")

    def test_slanted_rows(self):
        for slope in (-0.9, -0.4, 0.4, 0.9):
            self.assertEqual(self.read(in_a_row("20260", top=150, slope=slope)[::-1]), "20260")

    def test_the_cut_whose_worst_piece_is_best(self):
        def piece(digit, probability, start, end):
            made = judged(digit, probability, [0, start, 9, end])
            made.columns = (start, end)
            return made

        good = [piece(1, 0.97, 0, 4), piece(7, 0.96, 4, 9)]
        poor = [piece(4, 0.99, 0, 6), piece(0, 0.60, 6, 9)]
        self.assertEqual(cutting.best_cut(poor + good), good)
        self.assertEqual(cutting.best_cut(poor), [])
        self.assertEqual(cutting.best_cut(good[:1]), [])  # it covers only a half
        self.assertEqual(cutting.best_cut([]), [])


# --- From a picture to a number -------------------------------------------------------------------

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

    def test_ruled_and_squared_paper(self):
        drawing = written("58", 120, 12, margin=60)
        lines = np.zeros_like(drawing)
        lines[10::36] = 0.3
        self.assertEqual(read(picture(np.maximum(drawing, lines))), "58")
        lines[:, 10::36] = 0.3
        self.assertEqual(read(picture(np.maximum(drawing, lines))), "58")

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


class TestPretrained(TestCase):
    def test_it_is_small_and_says_how_it_was_made(self):
        path = HERE / "pretrained.pt"
        self.assertLess(path.stat().st_size, 1.5e6)
        net = model.load(path)
        self.assertTrue(net.other)
        self.assertIn("--recipe robust", net.run["command"])
        self.assertEqual(net.run["data"], idx_data.FILES)

    @needs_mnist
    def test_its_accuracy(self):
        net = model.load(HERE / "pretrained.pt")
        result = evaluate.evaluate(net, mnist().test_images, mnist().test_labels)
        self.assertGreaterEqual(result.accuracy, 0.996)
        self.assertEqual(result.confusion.shape, (10, 10))
        self.assertLess(result.calibration_error, 0.01)
        claimed = net.run["result"]["test_accuracy"]  # another processor rounds otherwise
        self.assertAlmostEqual(result.accuracy, claimed, delta=0.0003)

    @needs_mnist
    def test_its_accuracy_through_infer(self):
        """The first test images as they are, and drawn dark on a light page."""
        net, digits = infer.own_finder(), mnist()
        labels = digits.test_labels[:400].tolist()
        images = digits.test_images[:400].numpy()
        as_they_are = [opaque(image)[..., :3] for image in images]
        pages = [opaque(255 - np.pad(np.kron(image, np.ones((4, 4), np.uint8)), 30))[..., :3]
                 for image in images[:100]]
        for rgbs in (as_they_are, pages):
            found = infer.read_pictures(net, net, rgbs)
            texts = ["".join(str(reading.digit) for row in rows for reading in row)
                     for rows in found]
            correct = sum(text == str(label) for text, label in zip(texts, labels))
            self.assertGreaterEqual(correct, 0.97 * len(rgbs))


# --- The README -----------------------------------------------------------------------------------

DOCUMENTS = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]


class TestReadme(TestCase):
    """What README.md and docs/*.md show and say."""

    def test_every_command_and_program_runs(self):
        """As it stands there, in the order of the text, on a small data set. What an exercise adds
        to a script is added to a copy."""
        for path in [*SCRIPTS, HERE / "pretrained.pt", HERE / "digit.png"]:
            shutil.copy(path, self.folder)
        shutil.copytree(HERE / "support", self.folder / "support")
        shutil.copytree(HERE / "docs", self.folder / "docs")
        write_toy(self.folder / "data", 600, 100)
        styled = np.stack([place(draw(written_digit(digit))) for digit in range(10)])
        for part, count in (("train", 600), ("t10k", 100)):  # digits, as infer.py looks for them
            idx_data.write_idx(self.folder / f"data/{part}-images-idx3-ubyte",
                               styled[np.arange(count) % 10])
        write_toy(self.folder / "fashion", 1000, 100)
        for part, count in (("train", 20), ("test", 5)):
            for label in (0, 1):
                for number, image in enumerate(toy_images(np.full(count, label), label)):
                    png.write_png(self.folder / f"folders/{part}/{label}/{number}.png", image)
        for i, image in enumerate(toy_images(np.arange(20) % 10)):
            png.write_png(self.folder / f"my-digits/train/{i % 10}/{i}.png", image)
        done = set()
        for document in DOCUMENTS:
            text = document.read_text(encoding="utf-8")
            for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
                if language == "python" and "import" in code:
                    self.runs([sys.executable, "-c", code])
                elif language == "python":
                    self.add_to_script(code)
                for command in shell_commands(code):
                    if command not in done:
                        done.add(command)
                        _, *arguments = shlex.split(command, comments=True)  # after "python"
                        self.runs([sys.executable, *arguments])
        self.assertGreater(len(done), 15)
        # The program in docs/data.md has drawn this very picture.
        drawn, ours = (png.read_png((folder / "digit.png").read_bytes())
                       for folder in (self.folder, HERE))
        self.assertTrue((drawn == ours).all())

    def runs(self, command: list[str]) -> None:
        if "--draw" in command:  # it goes on until Ctrl-C
            with self.subTest(command):
                process, _ = test_canvas.start(self.folder, *command[3:])
                self.assertEqual(test_canvas.stop(process)[0], 0)
            return
        with self.subTest(command):
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True,
                                  timeout=170, stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 0, done.stderr)

    def add_to_script(self, code: str) -> None:
        """Put a network into model.py and its MODELS, or a recipe into RECIPES in train.py."""
        if code.startswith("def "):
            name = code[4 : code.index("(")]
            script, table, added = "model.py", "MODELS = {", f'"{name}": {name}, '
            before = f"{code}\n\n"
        else:
            script, table, added = "train.py", "RECIPES = {\n", code
            before = ""
        path = self.folder / script
        text = path.read_text(encoding="utf-8")
        self.assertEqual(text.count(table), 1)
        path.write_text(text.replace(table, before + table + added), encoding="utf-8")

    def test_links_lead_to_files(self):
        for document in DOCUMENTS:
            text = document.read_text(encoding="utf-8")
            for link in re.findall(r"(?:\]\(|src=\")([^)\"]+)", text):
                with self.subTest(f"{document.name}: {link}"):
                    self.assertTrue((document.parent / link).is_file())

    def test_messages_are_those_of_the_code(self):
        """Each message of docs/messages.md is in the code; `...` stands for what differs."""
        texts = [os.strerror(errno.ENOSPC)]
        for path in [*SCRIPTS, *(HERE / "support").glob("*.py")]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [getattr(part, "value", "") for part in node.values]
                    texts.append("...".join(part for part in parts if isinstance(part, str)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
        rows = re.findall(r"^\| (`.+?`) \|", (HERE / "docs/messages.md").read_text("utf-8"), re.M)
        self.assertGreater(len(rows), 60)
        for message in re.findall(r"`(.+?)`", "\n".join(rows)):
            pattern = ".*".join(map(re.escape, message.split("...")))
            with self.subTest(message):
                self.assertTrue(any(re.search(pattern, text, re.S) for text in texts))


def shell_commands(code: str) -> list[str]:
    """The commands of a code block that run a script of this project, without their comments."""
    commands = []
    for line in code.splitlines():
        line = line.removeprefix("$ ").removeprefix("pip install -r requirements.txt && ")
        if re.match(r"python \w+\.py", line) and line != "python test_all.py":  # this very program
            commands.append(line)
    return commands


# --- All of it ------------------------------------------------------------------------------------

def run_module(name: str) -> tuple[int, int, int, str]:
    """Run the tests of one module. Returns how many passed, failed and were skipped, and what
    unittest says of them."""
    report = io.StringIO()
    tests = unittest.defaultTestLoader.loadTestsFromName(name)
    result = unittest.TextTestRunner(report, verbosity=0).run(tests)
    # A test may fail in several of its parts.
    bad = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    skipped = len(result.skipped)
    return max(0, result.testsRun - len(bad) - skipped), len(bad), skipped, report.getvalue()


def run_all() -> int:
    """Run the modules in two processes, for most tests keep one core busy. Returns the exit
    status."""
    names = ["test_all"]  # first, for it takes the longest
    names += [f"support.{path.stem}" for path in sorted((HERE / "support").glob("test_*.py"))]
    totals = np.zeros(3, int)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # in those two, and in what they start
    # "spawn": a fork of a process that has loaded torch may hang.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(run_module, name): name for name in names}
        for done in as_completed(running):
            *counts, report = done.result()
            totals += counts
            print(f"{running[done]}\n{report}", file=sys.stderr, flush=True)
    passed, failed, skipped = totals
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


def main() -> None:
    if sys.argv[1:] == ["--benchmark"]:
        benchmark.benchmark()
    elif sys.argv[1:]:
        unittest.main()
    else:
        sys.exit(run_all())


if __name__ == "__main__":
    main()
