"""Tests of support/mapped.py: data that stay in their file."""
import os
import subprocess
import sys
import unittest
import warnings
from unittest import mock

import idx_data
import train
from support import benchmark_data, idx_checks, mapped
from support.test_tools import HERE, TestCase, ToyTestCase, call, run, some_digits, toy_images

import numpy as np
import torch


def little_memory(size: float):
    """Meanwhile the system says that it has this many bytes of memory left."""
    return mock.patch.object(idx_checks, "memory_left", lambda: size)


class TestMapped(ToyTestCase):
    def test_a_quarter_of_the_memory(self):
        """A raw file of bytes that is larger is mapped; packed or of wider elements it is read."""
        images = toy_images(np.arange(50))
        path, packed, wide = (self.folder / name for name in ("raw", "packed.gz", "wide"))
        idx_data.write_idx(path, images)
        idx_data.write_idx(packed, images)
        idx_data.write_idx(wide, np.arange(9, dtype=np.int32))
        for memory, expected in ((4 * images.nbytes, False), (4 * images.nbytes - 1, True),
                                 (1000, True)):
            with little_memory(memory):
                found = idx_data.read_idx(path)
            self.assertEqual((mapped.is_mapped(found), found.flags.writeable),
                             (expected, not expected))
            np.testing.assert_array_equal(found, images)
        with little_memory(images.nbytes), warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertFalse(mapped.is_mapped(idx_data.read_idx(packed)))
            self.assertEqual(mapped.as_tensor(idx_data.read_idx(path)).shape, images.shape)
        with little_memory(40):
            self.assertFalse(mapped.is_mapped(idx_data.read_idx(wide)))

    def test_what_is_wrong_with_a_file_is_said_all_the_same(self):
        good = bytes.fromhex("00000802 00000002 00000003 010203040506")
        for data, words in ((good + b"!", "found more"), (good[:-1], "found 5"),
                            (good[:12], "found 0")):
            with little_memory(20):
                self.fails(lambda data=data: idx_data.read_idx(self.file(data)), words)

    def test_what_cannot_be_mapped_is_read(self):
        """A shape of 65 dimensions: numpy has no such array, however it comes by its one byte."""
        data = bytes([0, 0, 8, 65]) + bytes([0, 0, 0, 1]) * 65 + b"!"
        with little_memory(2):
            self.fails(lambda: idx_data.read_idx(self.file(data)), "a shape that numpy holds")

    def test_the_same_data_set_and_the_same_weights(self):
        with little_memory(10**6):
            digits = idx_data.load_digits(self.data)
        self.assertEqual((digits.mapped, self.digits.mapped), (True, False))
        self.assertEqual(digits.hashes(), self.digits.hashes())
        self.assertEqual(idx_data.facts(digits), idx_data.facts(self.digits))
        for name in ("quick", "compact", "tiny2k"):
            nets = [train.train(train.RECIPES[name], data, 1, "cpu", "float32").state_dict()
                    for data in (digits, self.digits)]
            for key in nets[0]:
                self.assertTrue(torch.equal(nets[0][key], nets[1][key]), key)

    def test_some_of_the_images(self):
        everything = some_digits().train_images
        numbers = torch.tensor([7, 0, 31, 2, 39])
        images = mapped.MappedImages(everything, numbers).to("cpu")
        self.assertEqual((len(images), images.device.type), (5, "cpu"))
        for index in (torch.tensor([3, 3, 0]), slice(1, 3)):
            self.assertTrue(torch.equal(images[index], everything[numbers[index]]))
        pieces = list(images.split(2))
        self.assertEqual([len(piece) for piece in pieces], [2, 2, 1])
        self.assertTrue(torch.equal(torch.cat(pieces), everything[[0, 2, 7, 31, 39]]))


# Trains on images from all over a file, with less memory left than the file has bytes.
WITHIN = """
import resource, sys
import idx_data, train

data, size = sys.argv[1], int(sys.argv[2])
for line in open("/proc/self/status"):
    if line.startswith("VmData:"):
        limit = 1024 * int(line.split()[1]) + int(0.8 * size)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    bytearray(size)
except MemoryError:
    print("larger than memory")
digits = idx_data.load_digits(data)
digits.hashes()
run = train.start(train.RECIPES["quick"], digits, 0, "cpu", "float32")
run.images.numbers, run.labels = run.images.numbers[:6_000], run.labels[:6_000]
train.train_epoch(run)
print(train.validate(run)[1])
"""


@unittest.skipUnless(sys.platform == "linux", "needs memory limits")
class TestLargerThanMemory(TestCase):
    def test_a_file_that_is_larger(self):
        benchmark_data.write_many(400_000, some_digits(), self.folder)
        size = (self.folder / "train-images-idx3-ubyte").stat().st_size
        done = subprocess.run([sys.executable, "-c", WITHIN, str(self.folder), str(size)],
                              capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"})
        self.assertEqual((done.returncode, done.stdout), (0, "larger than memory\n1.0\n"),
                         done.stderr)


class TestManyImages(TestCase):
    def test_they_are_repeated(self):
        data, out = self.folder / "data", self.folder / "many"
        benchmark_data.write_many(40, some_digits(), data)
        done, _ = call(benchmark_data, 100, out, "--data", data)
        self.assertIn("100", done)
        few, many = some_digits(), idx_data.load_digits(out)
        self.assertEqual(len(many.train_labels), 100)
        for number in (0, 39, 40, 99):
            self.assertTrue(torch.equal(many.train_images[number], few.train_images[number % 40]))
            self.assertEqual(many.train_labels[number], few.train_labels[number % 40])
        self.assertTrue(torch.equal(many.test_images, few.test_images))
        done = run("support/benchmark_data.py", 0, out, "--data", data,
                   env={"PYTHONPATH": str(HERE)})
        self.error_line(done, "count must be from 1")
        done = run("support/benchmark_data.py", 50, data, "--data", data,
                   env={"PYTHONPATH": str(HERE)})
        self.error_line(done, "holds a data set already")


if __name__ == "__main__":
    unittest.main()
