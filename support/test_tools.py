"""What the tests share: toy digits, running a script, and a TestCase with a folder of its own."""
import contextlib
import functools
import io
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import idx_data
from support.errors import FormatError

import numpy as np

HERE = Path(__file__).resolve().parent.parent
SCRIPTS = [HERE / f"{name}.py" for name in ("idx_data", "model", "evaluate", "train", "infer")]

FONT = """
###  .#.  ###  ###  #.#  ###  ###  ###  ###  ###
#.#  ##.  ..#  ..#  #.#  #..  #..  ..#  #.#  #.#
#.#  .#.  ###  .##  ###  ###  ###  .#.  ###  ###
#.#  .#.  #..  ..#  ..#  ..#  #.#  .#.  #.#  ..#
###  ###  ###  ###  ..#  ###  ###  .#.  ###  ###
"""


def glyph(digit: int) -> np.ndarray:
    """A digit as (5, 3) of 0 and 1."""
    return np.array([[c == "#" for c in line.split()[digit]] for line in FONT.split("\n")[1:6]],
                    np.uint8)


def toy_images(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N, 28, 28) uint8: the digits of FONT, four pixels a dot, shifted, in varying grey, noisy."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 30, (len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels):
        y, x = 4 + rng.integers(-3, 4), 8 + rng.integers(-3, 4)
        dot = np.full((4, 4), rng.integers(150, 220), np.uint8)
        image[y : y + 20, x : x + 12] += np.kron(glyph(label % 10), dot)
    return images


def write_toy(root: Path, train_count: int = 600, test_count: int = 200, classes: int = 10) -> Path:
    """A small data set in four IDX files."""
    for part, count in (("train", train_count), ("t10k", test_count)):
        labels = np.arange(count) % classes
        idx_data.write_idx(root / f"{part}-images-idx3-ubyte", toy_images(labels, count))
        idx_data.write_idx(root / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    return root


def run(script, *arguments, cwd=None, check=None, env=None, **more):
    """Run one of the scripts in a process of its own; `check` is the expected exit status, None in
    `env` leaves a variable out."""
    env = {**os.environ, "OMP_NUM_THREADS": "2", **(env or {})}
    done = subprocess.run([sys.executable, str(HERE / script), *map(str, arguments)], cwd=cwd,
                          text=True, capture_output=True, timeout=600, encoding="utf-8",
                          errors="replace", **more,
                          env={name: value for name, value in env.items() if value is not None})
    if check is not None and done.returncode != check:
        raise AssertionError(f"{script} {arguments}: status {done.returncode}, expected {check}\n"
                             f"{done.stdout}\n{done.stderr}")
    return done


def call(module, *arguments, columns=80, cwd=".") -> tuple[str, str]:
    """Standard output and standard error of a script's main, called in this process."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(cwd)
    try:
        with mock.patch.dict(os.environ, {"COLUMNS": str(columns)}), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = module.main([*map(str, arguments)])
    finally:
        os.chdir(before)
    assert not status, status
    return out.getvalue(), err.getvalue()


class TestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, data: bytes, name: str = "file") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def fails(self, function, *words, kind=FormatError) -> str:
        """`function()` raises `kind` with a message of one line that holds all the words."""
        with self.assertRaises(kind) as caught:
            function()
        message = str(caught.exception)
        for word in map(str, words):
            self.assertIn(word, message)
        return message


class ToyTestCase(TestCase):
    """With a small data set, written once a class."""

    @classmethod
    def setUpClass(cls):
        cls.toy = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.toy.cleanup)
        cls.data = write_toy(Path(cls.toy.name))
        cls.digits = idx_data.load_digits(cls.data)


def data_folder() -> Path | None:
    """Where the real MNIST lies: in data/, or wherever the environment variable MNIST_DATA says."""
    for root in filter(None, (os.environ.get("MNIST_DATA"), HERE / "data")):
        if len(idx_data.find_files(Path(root))) == 4:
            return Path(root)
    return None


needs_mnist = unittest.skipIf(data_folder() is None,
                              "the real MNIST is not in data/ (python idx_data.py fetches it)")


@functools.cache
def mnist() -> idx_data.Digits:
    return idx_data.load_digits(data_folder())
