"""Tests of support/captured.py. CUDA itself is only there where torch finds it."""
import unittest
from dataclasses import replace
from types import SimpleNamespace

import train
from support.captured import WARM_UP, Captured, can_be_recorded
from support.test_tools import TestCase, some_digits

import torch


class Uncaptured(Captured):
    """Where there is no CUDA: a "graph" that computes anew what it would replay, on the very
    tensors that it would read and overwrite."""

    def warm_up(self, run):
        return self.step(run, self.batch)

    def record(self, run):
        self.results = torch.full((), torch.nan), torch.full((), torch.nan)
        self.replayed = 0
        place = self.batch.data_ptr()

        def replay():
            assert self.batch.data_ptr() == place
            for result, new in zip(self.results, self.step(run, self.batch), strict=True):
                result.copy_(new)
            self.replayed += 1
        return SimpleNamespace(replay=replay)


class TestCaptured(TestCase):
    def trained(self, name: str, wrapped, device="cpu", **options):
        recipe = replace(train.RECIPES[name], epochs=2, batch_size=50)
        run = train.start(recipe, some_digits(each=33), 1, device, "float32", **options)
        if wrapped:
            run.learn = wrapped(run.learn)
        for _ in train.epochs(run):
            pass
        return run

    def assert_close(self, run, other):
        for row, expected in zip(run.net.history, other.net.history, strict=True):
            for key in expected:
                self.assertAlmostEqual(row[key], expected[key], 4, key)
        for name, tensor in other.net.state_dict().items():
            torch.testing.assert_close(run.net.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)

    def test_the_same_training_uncaptured(self):
        """314 images are 6 batches of 50 and a short one, which is not replayed."""
        for name in ("small", "dropout", "compact"):
            run = self.trained(name, Uncaptured)
            steps = len(run.labels) // 50
            self.assertEqual(run.learn.replayed, 2 * steps - WARM_UP)
            self.assertGreater(len(run.labels) % 50, 0)
            self.assert_close(run, self.trained(name, None))

    def test_only_on_cuda(self):
        self.assertFalse(can_be_recorded(torch.zeros(1)))
        self.assertFalse(can_be_recorded(SimpleNamespace(device=torch.device("cuda"))))

    @unittest.skipUnless(torch.cuda.is_available(), "needs a GPU")
    def test_the_same_training_captured(self):
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):
            for name in train.RECIPES:
                with self.subTest(name):
                    run = self.trained(name, None, "cuda")
                    self.assertIsNotNone(run.learn.graph)
                    self.assert_close(run, self.trained(name, None, "cuda", graph=False))


if __name__ == "__main__":
    unittest.main()
