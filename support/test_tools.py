"""What the tests share: toy digits, running a script, and a TestCase with a folder of its own."""
import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import unittest
from pathlib import Path
from unittest import mock

import evaluate
import idx_data
import model
from support.compositions import drawn, smooth_curve
from support.errors import FormatError
from support.files import find_files
from support.ink import Candidate

import numpy as np
import torch

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


# Strokes of the digits, points of y and x in a box that is 1 high: straight lines and curves.
STROKES = {
    0: [("curve", (.05, .4), (.2, .1), (.5, .03), (.85, .12), (.97, .32), (.8, .55), (.5, .6),
         (.2, .52), (.03, .3))],
    1: [("line", (0, .3), (1, .27))],
    2: [("curve", (.2, .05), (.02, .3), (.2, .55), (.5, .42), (.95, .05)),
        ("line", (.95, .05), (.95, .62))],
    3: [("curve", (.1, .08), (0, .3), (.22, .52), (.45, .25)),
        ("curve", (.45, .25), (.7, .57), (.97, .3), (.87, .03))],
    4: [("line", (0, .4), (.6, 0), (.6, .65)), ("line", (.3, .45), (1, .42))],
    5: [("line", (0, .55), (0, .1), (.42, .07)),
        ("curve", (.42, .07), (.38, .35), (.7, .55), (.98, .3), (.9, .02))],
    6: [("curve", (0, .45), (.3, .12), (.7, .03), (.98, .3), (.76, .53), (.55, .3), (.7, .04))],
    7: [("line", (0, 0), (0, .55), (1, .2))],
    8: [("curve", (.02, .3), (.2, .06), (.5, .3), (.8, .55), (.98, .3), (.8, .04), (.5, .3),
         (.2, .53), (.02, .3))],
    9: [("curve", (.1, .5), (0, .3), (.2, .05), (.43, .28), (.12, .52)),
        ("line", (.12, .52), (1, .45))]}


def written_digit(digit: int, height: int = 60, pen: float = 6) -> np.ndarray:
    """A digit as a person would write it, (h, w) float32 of ink, 0 to 1."""
    shape = (round(height + pen) + 2, round(0.65 * height + pen) + 2)
    picture = np.zeros(shape, np.float32)
    for kind, *points in STROKES[digit]:
        points = np.array(points, float)
        if kind == "curve":
            points = smooth_curve(points)
        picture = np.maximum(picture, drawn(shape, 1 + pen / 2 + height * points, pen))
    return picture[:, picture.any(0)]


def written(text: str, height: int = 60, pen: float = 6, slope: float = 0, gap: float = 20,
            margin: int = 30) -> np.ndarray:
    """Numbers, a row on each line of the text, (H, W) float32 of ink, 0 to 1. slope: pixels down
    for each pixel to the right; gap: pixels between two digits."""
    placed = []
    for number, line in enumerate(text.split("\n")):
        x = 0
        for letter in line:
            ink = written_digit(int(letter), height, pen)
            placed.append((round(2 * height * number + slope * x), round(x), ink))
            x += ink.shape[1] + gap
    top = min(y for y, _, _ in placed)
    bottom = max(y + ink.shape[0] for y, _, ink in placed)
    right = max(x + ink.shape[1] for _, x, ink in placed)
    page = np.zeros((bottom - top + 2 * margin, right + 2 * margin), np.float32)
    for y, x, ink in placed:
        y, x = y - top + margin, x + margin
        part = page[y : y + ink.shape[0], x : x + ink.shape[1]]
        np.maximum(part, ink, out=part)
    return page


def picture(ink: np.ndarray, paper=255, dark=0) -> np.ndarray:
    """Ink (H, W) of 0 to 1 as (H, W, 4) uint8: `dark` where there is ink, on `paper`."""
    rgba = np.full(ink.shape + (4,), 255, np.uint8)
    rgba[..., :3] = np.rint(paper + (dark - paper) * ink)[..., None]
    return rgba


def write_toy(root: Path, train_count: int = 600, test_count: int = 200, classes: int = 10) -> Path:
    """A small data set in four IDX files."""
    for part, count in (("train", train_count), ("t10k", test_count)):
        labels = np.arange(count) % classes
        idx_data.write_idx(root / f"{part}-images-idx3-ubyte", toy_images(labels, count))
        idx_data.write_idx(root / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    return root


def write_digits(digits: idx_data.Digits, root: Path) -> None:
    """A data set as four IDX files."""
    parts = (digits.train_images, digits.train_labels.byte(), digits.test_images,
             digits.test_labels.byte())
    for name, part in zip(idx_data.FILES, parts):
        idx_data.write_idx(root / name, part.numpy())


def some_digits(classes=10, each=4, seed=0) -> idx_data.Digits:
    """Noise with a bright bar whose place tells the class."""
    labels = torch.arange(classes * each) % classes
    images = torch.randint(0, 60, (len(labels), 28, 28),
                           generator=torch.Generator().manual_seed(seed)).byte()
    for image, label in zip(images, labels.tolist()):
        image[4:24, 4 + label % 20 : 7 + label % 20] = 250
    return idx_data.Digits(images, labels, images.flip(0), labels.flip(0))


def some_net(name="small", classes=10, epochs=3, seed=0, other=False, **run) -> model.Network:
    """An untrained network with a made-up history and run."""
    torch.manual_seed(seed)
    net = model.build(name, classes, other).eval()
    for epoch in range(1, epochs + 1):
        net.history.append({
            "epoch": epoch, "lr": 0.01, "best": epoch <= 5,
            "train_loss": 0.5 / epoch, "train_accuracy": 0.9 + 0.09 * (epoch - 1) / epochs,
            "val_loss": 0.3 / epoch + 0.01 * (epoch - 1),
            "val_accuracy": 0.93 + 0.05 * (epoch - 1) / epochs})
    net.run = {"recipe": "small", "command": "python train.py --seed 7", "machine": "Testbox x86",
               "settings": {"epochs": epochs, "patience": 0, "val_fraction": 0.25, "seed": 7,
                            "augment": {"degrees": 10}},
               "versions": {"torch": "9.9.9"}, "data": {"t10k": "abc123"},
               "result": {"train_seconds": 4.5, "test_accuracy": 0.5}, **run}
    return net


def some_result(classes, count=300, seed=0, accuracy=0.9) -> evaluate.Result:
    """Random labels, and log-probabilities that are correct for about `accuracy` of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += 8.0 * (torch.rand(count, generator=generator) < accuracy)
    return evaluate.Result(logits.log_softmax(1), labels)


def judged(digit: int, probability: float, box, dark=True, cut_off=False) -> Candidate:
    """A candidate that a network has judged: `digit` with this probability, the rest is *other*."""
    at_border = np.array([cut_off, False, False, False])
    made = Candidate(np.zeros((28, 28), np.uint8), np.array(box, float), at_border, dark,
                     np.zeros((2, 2), np.float32))
    made.probabilities = np.zeros(11, np.float32)
    made.probabilities[digit] = probability
    made.probabilities[10] = 1 - probability
    return made


def heed_all() -> None:
    """For a process that a test interrupts: a shell ignores Ctrl-C in what it starts in the
    background, nohup ignores SIGHUP, and what is ignored is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


def call(module, *arguments, columns=80, cwd=".", status=0) -> tuple[str, str]:
    """Standard output and standard error of a script's main, called in this process; `status` is
    what it is expected to return."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(cwd)
    try:
        with mock.patch.dict(os.environ, {"COLUMNS": str(columns)}), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = module.main([*map(str, arguments)])
    finally:
        os.chdir(before)
    assert found == status, (found, out.getvalue(), err.getvalue())
    return out.getvalue(), err.getvalue()


class TestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def enter(self, manager) -> None:
        """`with manager:` until the test is over. (unittest has it from Python 3.11 on.)"""
        manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)

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

    def error_line(self, done, *words) -> None:
        """A process has ended with status 2 and one line, which holds all the words."""
        lines = done.stderr.splitlines() or [""]
        self.assertTrue(lines[-1].startswith("error: "), done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        for word in words:
            self.assertIn(word, lines[-1])
        self.assertEqual(done.returncode, 2)


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
        if len(find_files(Path(root), idx_data.FILES)) == 4:
            return Path(root)
    return None


needs_mnist = unittest.skipIf(data_folder() is None,
                              "the real MNIST is not in data/ (python idx_data.py fetches it)")


@functools.cache
def mnist() -> idx_data.Digits:
    return idx_data.load_digits(data_folder())


# --- Fuzzing --------------------------------------------------------------------------------------

def fuzz(test: TestCase, read, *samples: bytes, growth: int = 50_000) -> None:
    """Mutated, truncated, extended and spliced files: `read(data)` reads each or raises
    FormatError, within 10 seconds and 16 MB and `growth` times the file's size. The environment
    variables FUZZ_SECONDS and FUZZ_SEED say for how long, and with which random numbers."""
    seconds, seed = float(os.environ.get("FUZZ_SECONDS", 1)), int(os.environ.get("FUZZ_SEED", 0))
    rng = np.random.default_rng(seed)
    until, count = time.monotonic() + seconds, 0
    tracemalloc.start()
    test.addCleanup(tracemalloc.stop)
    while time.monotonic() < until or count < 50:
        data = mutate(rng, samples)
        words = f"seed {seed}, file {count}, {len(data)} bytes: {data[:400]!r}"
        tracemalloc.reset_peak()
        started = time.process_time()  # the machine may be busy with other things
        try:
            read(data)
        except FormatError:
            pass
        except Exception as error:
            test.fail(f"{error!r}, {words}")
        test.assertLess(time.process_time() - started, 10, words)
        test.assertLess(tracemalloc.get_traced_memory()[1], (1 << 24) + growth * len(data), words)
        count += 1


def mutate(rng, samples) -> bytes:
    """One of the samples with one to three changes."""
    data = bytearray(samples[rng.integers(len(samples))])
    for _ in range(rng.integers(1, 4)):
        kind, at = rng.integers(7), int(rng.integers(len(data) + 1))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data += rng.bytes(int(rng.integers(1, 40)))
        elif kind == 2:
            sizes = ["00000000", "ffffffff", "7fffffff", "00000001"]
            data[at : at + 4] = bytes.fromhex(sizes[rng.integers(4)])
        elif kind == 3:
            other = samples[rng.integers(len(samples))]
            data[at:] = other[int(rng.integers(len(other))):]
        elif kind == 4:
            data[at:at] = data[at : at + int(rng.integers(1, 30))]
        elif kind == 5:
            del data[at : at + int(rng.integers(1, 30))]
        elif data:
            data[at % len(data)] ^= 1 << int(rng.integers(8))
    return bytes(data)
