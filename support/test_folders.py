"""Folders of pictures as a data set, class names, plain models, and folders that are none."""
import contextlib
import io
import json
import os
import tempfile
import unittest
from pathlib import Path

import numpy as np

import evaluate
import idx_data
import infer
import model
import train
from support import folders
from support.compositions import LIFT, drawn
from support.errors import FormatError, UsageError
from support.pictures import opaque, read_picture_file, small_grey
from support.png import write_png
from support.test_tools import TestCase, call, mnist, needs_mnist, picture, toy_images, write_toy

try:
    from PIL import Image
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


def write_shapes(root: Path, seed: int = 0) -> None:
    """Five class folders of 40 pictures each, a quarter of them for testing, every other one JPEG
    where Pillow is there to read it."""
    rng = np.random.default_rng(seed)
    for name in SHAPES:
        for number in range(40):
            part = "test" if number % 4 == 0 else "train"
            suffix = "jpg" if number // 4 % 2 and Image else "png"
            write_picture(root / part / name / f"{number}.{suffix}", draw_shape(name, rng))
