"""The tests: here those of what the scripts teach, in support/ those of whole runs and of the rest.
Standard unittest, also collected by pytest.

    python test_all.py                 all of them, without a network, in about three minutes
    python test_all.py TestIdx         one class of this file
    python -m unittest support.test_png

Oracles, not echoes: bytes written by hand, slow references, published numbers, real processes. What
needs the real MNIST looks for it in data/ and says so where it is skipped.
"""
import gzip
import io
import itertools
import math
import multiprocessing
import os
import sys
import unittest
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from unittest import mock

import evaluate  # the local modules first: support/__init__.py sets what torch reads when loaded
import idx_data
import infer
import model
import train
from support import benchmark
from support.compositions import examples
from support.errors import UsageError
from support.ink import Candidate
from support.pictures import opaque
from support.result_table import frequent_mistakes, mistake_table
from support.test_tools import (HERE, TestCase, call, data_folder, fuzz, judged, mnist,
                                needs_mnist, run, some_digits, some_net, some_result, toy_images,
                                write_toy)

import numpy as np
import torch  # after support/__init__.py, which says why


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
                (b"", "an empty file"), (good[:3], "4 bytes or more, found 3"),
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

    def test_any_bytes(self):
        def read(data):
            idx_data.read_idx(self.file(data))
        raw = [bytes.fromhex(text) for text, *_ in self.BY_HAND]
        fuzz(self, read, *raw, *map(gzip.compress, raw), growth=5000)


# --- Data sets: layouts, tensors ------------------------------------------------------------------

class TestDataSet(TestCase):
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
        self.fails(lambda: idx_data.load_digits(self.folder), self.folder, "training images",
                   "found none")

    def test_another_data_set_is_not_mixed_with_mnist(self):
        (write_toy(self.folder, 40, 20) / "t10k-labels-idx1-ubyte").unlink()
        message = self.fails(lambda: idx_data.load_digits(self.folder), "t10k-labels-idx1-ubyte",
                             kind=FileNotFoundError)
        self.assertIn("not MNIST's", message)

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

    def test_precise_bn_measures_every_image_alike(self):
        """Also the last of 501, which is in a batch of 250, and bright."""
        images = torch.randint(0, 60, (501, 28, 28), generator=torch.Generator().manual_seed(0))
        images[500] += 190
        for count in (300, 501):
            net = model.build("small").eval()
            weights = {name: weight.clone() for name, weight in net.named_parameters()}
            model.precise_bn(net, images[:count].byte())
            x = (images[:count].double().unsqueeze(1) / 255 - net.mean) / net.std
            outputs = net[1](net[0](x.float())).detach().double()  # what norm1 takes
            mean, variance = outputs.mean((0, 2, 3)), outputs.var((0, 2, 3))
            torch.testing.assert_close(net.norm1.running_mean.double(), mean, rtol=0.01, atol=1e-3)
            torch.testing.assert_close(net.norm1.running_var.double(), variance, rtol=0.02, atol=0)
            for name, weight in net.named_parameters():
                self.assertTrue(torch.equal(weight, weights[name]), name)
            self.assertFalse(net.training)

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


# --- Figures --------------------------------------------------------------------------------------

class TestResult(unittest.TestCase):
    def test_confusion_is_counted(self):
        result = some_result(7)
        counted = [[0] * 7 for _ in range(7)]
        for true, row in zip(result.labels.tolist(), result.log_probabilities.tolist()):
            counted[true][row.index(max(row))] += 1
        self.assertEqual(result.confusion.tolist(), counted)
        self.assertEqual(result.errors, 300 - sum(counted[k][k] for k in range(7)))
        worst = frequent_mistakes(result, 5)
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
        answers = torch.eye(3)[[0, 0, 1, 1]]
        result = evaluate.Result(answers.log(), torch.tensor([0, 0, 0, 1]))
        self.assertEqual(result.confusion.tolist(), [[2, 1, 0], [0, 1, 0], [0, 0, 0]])
        expected = [[1, 2 / 3, 0.8], [1 / 2, 1, 2 / 3], [0, 0, 0]]
        torch.testing.assert_close(result.class_scores, torch.tensor(expected).double())

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
        rows = mistake_table(result, evaluate.DISPUTED)
        self.assertEqual([row[0][-1] for row in rows[1:]], ["*"] * 10)
        drawn = evaluate.draw(some_net(), result, digits.test_images, evaluate.DISPUTED)
        self.assertEqual(drawn["mistakes"].count("stroke-dasharray"), 15)
        self.assertIn("(15)", drawn["mistakes"])


# --- Which candidates are digits ------------------------------------------------------------------

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
        self.assertEqual(infer.choose([sloppy, alone, low, *digits])[2:], [sloppy])
        unsure = judged(3, 0.4, [10, 10, 50, 30])  # of which nobody knows whether it is a digit
        self.assertEqual(infer.choose([unsure, sloppy]), [unsure])
        self.assertEqual(infer.choose([sloppy]), [])

    def test_single(self):
        large = judged(5, 0.97, [0, 0, 90, 50])
        self.assertEqual(infer.choose([*in_a_row("123", left=80), large], single=True), [large])

    def test_where_to_look_closer(self):
        likest = judged(0, 0.15, [10, 10, 50, 40])
        table, sheet = judged(0, 0.01, [0, 0, 90, 90]), judged(0, 0.01, [5, 5, 85, 85], dark=False)
        for large in (table, sheet):
            large.strength = np.ones((40, 40), np.float32)
        found = [table, likest, sheet]
        self.assertEqual([box.tolist() for box in infer.where_to_look(found)], [[10, 10, 50, 40]])
        table.strength[4:36, 4:36] = 0  # the sheet is a hole in the table, but it is no digit
        sheet.strength[10:20, 10:16] = 0
        self.assertEqual([box.tolist() for box in infer.where_to_look(found)], [[25, 25, 45, 37]])
        digits = in_a_row("20")
        boxes = infer.where_to_look([*found, *digits])
        self.assertEqual([box.tolist() for box in boxes], [digit.box.tolist() for digit in digits])
        self.assertEqual(infer.where_to_look([]), [])

    def test_a_piece_and_a_line_across_the_picture_are_doubtful(self):
        for box, cut_off, columns, doubted in (([10, 10, 50, 18], False, None, False),
                                               ([0, 10, 50, 18], True, None, True),
                                               ([0, 10, 50, 40], True, None, False),
                                               ([10, 10, 50, 40], False, (0, 30), True)):
            digit = judged(1, 0.99, box, cut_off=cut_off)
            digit.columns = columns
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
    names = ["support.test_readme", "test_all"]  # first, for they take the longest
    for path in sorted((HERE / "support").glob("test_*.py")):
        name = f"support.{path.stem}"
        if name not in names:
            names.append(name)
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
