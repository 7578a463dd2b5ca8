"""What another program hands over: arrays and tensors of several shapes."""
import evaluate
import infer
import model
from support.arrays import as_rgba, as_tensors
from support.errors import UsageError
from support.test_tools import TestCase, picture, some_digits, some_net, written

import numpy as np
import torch


class TestArrays(TestCase):
    def test_pictures(self):
        rgba = np.random.default_rng(0).integers(0, 255, (5, 7, 4), np.uint8)
        np.testing.assert_array_equal(as_rgba(rgba), rgba)
        np.testing.assert_array_equal(as_rgba(rgba[..., :3])[..., :3], rgba[..., :3])
        grey = as_rgba(rgba[..., 0])
        for channel in range(3):
            np.testing.assert_array_equal(grey[..., channel], rgba[..., 0])
        for opaque in (grey, as_rgba(rgba[..., :3])):
            self.assertTrue((opaque[..., 3] == 255).all())
        for wrong, *words in ((rgba / 255, "float64"), (rgba[..., :2], "5 × 7 × 2"),
                              (rgba[0, 0], "4 of"), (rgba[:0], "0 × 7"), (rgba[None], "1 × 5")):
            self.fails(lambda wrong=wrong: as_rgba(wrong), "(H, W, 3)", *words, kind=UsageError)

    def test_read_digits_and_mnist_style(self):
        rgba = picture(written("58"))
        for pixels in (rgba, rgba[..., :3], rgba[..., 0], torch.from_numpy(rgba)):
            found = infer.read_digits(infer.own_finder(), pixels)
            self.assertEqual([reading.label for reading in found], ["5", "8"])
        five = picture(written("5"))
        np.testing.assert_array_equal(infer.mnist_style(five[..., 0]), infer.mnist_style(five))
        self.fails(lambda: infer.mnist_style(five / 255.0), "uint8", "float64", kind=UsageError)

    def test_evaluate(self):
        digits, net = some_digits(), some_net()
        expected = evaluate.evaluate(net, digits.test_images, digits.test_labels)
        images, labels = digits.test_images.numpy(), digits.test_labels.numpy()
        for some, numbers in ((images, labels), (images[::-1], labels[::-1].astype(np.uint8)),
                              (images.astype(np.float32), labels.tolist()),
                              (images, labels.astype(">u2"))):
            result = evaluate.evaluate(net, some, numbers)
            self.assertAlmostEqual(result.loss, expected.loss, 5)
            self.assertEqual(result.errors, expected.errors)
        for some, numbers, *words in (
                (images[:, None], labels, "(N, 28, 28)", "40 × 1 × 28 × 28"),
                (images[0], labels, "28 × 28 of"), (images / 255, labels, "float64"),
                (images[:0], labels[:0], "0 × 28 × 28"), (images, labels[1:], "40 labels", "39"),
                (images, labels / 1, "whole number", "float64"),
                (images, labels + 1, "labels from 0 to 9", "1 to 10"),
                (images, labels - 1, "labels from 0 to 9", "-1 to 8"),
                (images, list("ab"), "numbers")):
            self.fails(lambda some=some, numbers=numbers: evaluate.evaluate(net, some, numbers),
                       *words, kind=UsageError)

    def test_they_come_to_the_network_s_device(self):
        images, labels = as_tensors(np.zeros((2, 28, 28), np.uint8), [1, 2], model.SIZE, 10, "meta")
        self.assertEqual((images.device.type, labels.device.type, labels.dtype),
                         ("meta", "meta", torch.int64))
