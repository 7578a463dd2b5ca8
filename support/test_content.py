"""Whether pictures are digits in MNIST's style, or plain; and what numbers their classes have."""
import contextlib
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import evaluate
import idx_data
import infer
import model
import train
from support.content import content_of, mnist_share, renumber, take_after
from support.errors import UsageError
from support.folders import folder_of
from support.mnist_style import draw, place
from support.png import write_png
from support.test_tools import (TestCase, call, mnist, needs_mnist, some_digits, toy_images,
                                write_toy, written, written_digit)

import numpy as np
import torch


def styled(labels: list[int], seed: int = 0) -> np.ndarray:
    """(N, 28, 28) uint8: digits written with several pens, as MNIST would show them."""
    rng = np.random.default_rng(seed)
    return np.stack([place(draw(written_digit(label, 60, rng.uniform(4, 10))))
                     for label in labels])


class TestContent(TestCase):
    def digits(self, images: np.ndarray, labels: list[int], names=None) -> idx_data.Digits:
        images, labels = torch.from_numpy(images), torch.tensor(labels)
        return idx_data.Digits(images, labels, images[:1], labels[:1], names)

    @needs_mnist
    def test_mnist_and_parts_of_it(self):
        self.assertEqual(content_of(mnist())[0], "digits")
        for labels in ((0, 1), (3, 8, 9)):
            chosen = torch.isin(mnist().test_labels, torch.tensor(labels)).nonzero()[:300, 0]
            part = replace(mnist(), train_images=mnist().test_images[chosen],
                           train_labels=mnist().test_labels[chosen])
            self.assertEqual(content_of(part)[0], "digits")
        self.assertGreater(mnist_share(mnist().test_images[:2000].numpy()), 0.99)

    def test_digits_written_and_placed_as_mnist_does(self):
        labels = list(range(10)) * 4
        content, why = content_of(self.digits(styled(labels), labels))
        self.assertEqual(content, "digits", why)
        self.assertIn("labels 0 to 9", why)

    def test_folders_of_such_digits(self):
        for number, image in enumerate(styled([1, 2, 7])):
            write_png(self.folder / f"train/{[1, 2, 7][number]}/a.png", 255 - image)
        with contextlib.redirect_stderr(io.StringIO()):
            digits = idx_data.load_digits(self.folder)
        self.assertEqual((content_of(digits)[0], digits.inverted), ("digits", True))

    def test_other_styles(self):
        """Shifted, larger, on grey, turned round, without a middle, noise."""
        labels = list(range(10)) * 4
        images = styled(labels)
        larger = images.repeat(2, 1).repeat(2, 2)[:, 14:42, 14:42]
        page = written("7", 40, 4, margin=60)
        anywhere = np.stack([np.uint8(255 * page[y : y + 28, y : y + 28]) for y in range(40)])
        for name, other in (("shifted", np.roll(images, 4, 2)), ("larger", larger),
                            ("on grey", images // 2 + 100), ("turned round", 255 - images),
                            ("empty", images * 0), ("toy", toy_images(np.array(labels))),
                            ("bars", some_digits(10).train_images.numpy()), ("lines", anywhere)):
            content, why = content_of(self.digits(other, labels[: len(other)]))
            self.assertEqual(content, "plain", name)
            self.assertIn("% in MNIST's style", why)

    def test_other_classes(self):
        """Letters in MNIST's style are no digits."""
        labels = list(range(10))
        images = styled(labels)
        for names in (list("abcdefghij"), [str(k) for k in range(1, 11)]):
            content, why = content_of(self.digits(images, labels, names))
            self.assertEqual((content, why), (
                "plain", f"the classes are {', '.join(names[:4])} and 6 more, not the digits"))
        content, why = content_of(self.digits(images, [*range(9), 25]))
        self.assertEqual((content, "26 classes" in why), ("plain", True))
        wide = np.pad(images, [(0, 0), (2, 2), (2, 2)])
        self.assertEqual(content_of(self.digits(wide, labels))[0], "plain")


class TestClasses(TestCase):
    """Some of the classes of another model, in other numbers."""

    NAMES = ["a/b", "cat", "dog", "emu"]

    def digits(self, *names: str) -> idx_data.Digits:
        labels = torch.arange(len(names))
        images = torch.zeros(len(names), 28, 28, dtype=torch.uint8)
        return idx_data.Digits(images, labels, images, labels.flip(0), list(names))

    def test_they_get_the_model_s_numbers(self):
        digits = self.digits("emu", "class-0", "cat")  # the second one's folder, from the page
        self.assertEqual(renumber(digits, self.NAMES), [])
        self.assertEqual(digits.train_labels.tolist(), [3, 0, 1])
        self.assertEqual(digits.test_labels.tolist(), [1, 0, 3])
        self.assertEqual((digits.labels, digits.classes), (self.NAMES, 4))

    def test_classes_without_images_do_not_count(self):
        """Folders named by single digits are ten classes, whichever are there."""
        digits = self.digits(*map(str, range(10)))
        digits.train_labels = torch.tensor([3, 5])
        digits.test_labels = torch.tensor([5])
        self.assertEqual(renumber(digits, ["3", "4", "5"]), [])
        self.assertEqual(digits.train_labels.tolist(), [0, 2])

    def test_another_class_is_an_error(self):
        digits = self.digits("cat", "fox")
        net = SimpleNamespace(class_names=self.NAMES, content="plain")
        self.fails(lambda: take_after(digits, net, "pets"), "pets", "fox", "cat, dog, emu",
                   kind=UsageError)
        self.assertEqual(digits.train_labels.tolist(), [0, 1])

    def test_folders_are_named_by_the_labels_if_those_are_plain(self):
        for label, folder in (("7", "7"), ("../x", "class-5"), ("T-shirt", "T-shirt"),
                              ("", "class-5"), (".hidden", "class-5"), ("a/b", "class-5"),
                              ("a\\b", "class-5"), ("é", "é"), ("x" * 99, "class-5"),
                              ("con trast", "con trast")):
            self.assertEqual(folder_of(label, 5), folder)


class TestPlain(TestCase):
    """A plain data set in IDX files, and the key in the checkpoint."""

    def test_infer_equals_evaluate(self):
        """The toy digits are not centred as MNIST's are, so their model is a plain one."""
        write_toy(self.folder / "toy", 600, 210)
        out, _ = call(train, "--data", "toy", "--recipe", "quick", "--batch-size", 64, "--epochs",
                      2, "--device", "cpu", cwd=self.folder)
        self.assertIn("content plain: labels 0 to 9, ", out)
        net = model.load(self.folder / "model.pt")
        digits = idx_data.load_digits(self.folder / "toy")
        result = evaluate.evaluate(net, digits.test_images, digits.test_labels)
        out, _ = call(infer, "toy/t10k-images-idx3-ubyte", "--json", cwd=self.folder)
        self.assertEqual([json.loads(line)["digit"] for line in out.splitlines()],
                         result.predictions.tolist())
        # In several batches, whose longest names differ, the columns stay where they are.
        out, _ = call(infer, "toy/t10k-images-idx3-ubyte", "--top", 1, cwd=self.folder)
        self.assertEqual(len({line.index("%") for line in out.splitlines()}), 1)

    def test_the_flag_decides(self):
        write_toy(self.folder / "toy", 600, 20)
        arguments = ["--data", "toy", "--recipe", "quick", "--batch-size", 64, "--epochs", 2]
        for content in ("digits", "plain"):
            out, _ = call(train, *arguments, "--content", content, cwd=self.folder)
            self.assertIn(f"content {content}: given by --content or --from", out)
            self.assertEqual(model.load(self.folder / "model.pt").content, content)
        self.fails(lambda: call(train, *arguments, "--content", "digit", cwd=self.folder),
                   "did you mean digits", kind=UsageError)
        self.fails(lambda: call(train, *arguments, "--content", "digits", "--resume",
                                cwd=self.folder), "content plain, now digits", kind=UsageError)

    def test_a_polarity_that_the_training_did_not_have(self):
        """Each picture is taken as it is: light on dark, if the training was that."""
        net = model.build("quick", 3).eval()
        net.content, net.inverted = "plain", False
        grey = toy_images(np.array([4]))[0]
        self.assertTrue((infer.read_digits(net, grey)[0].seen == grey).all())
        net.inverted = True
        self.assertTrue((infer.read_digits(net, grey)[0].seen == 255 - grey).all())

    def test_checkpoints(self):
        """The new keys come back; without them it is one of digits; wrong ones are refused."""
        path = self.folder / "a.pt"
        net = model.build("tiny2k", 3)
        net.content, net.labels, net.inverted = "plain", ["a", "ß", "c d"], True
        model.save(net, path)
        again = model.load(path)
        self.assertEqual((again.content, again.labels, again.inverted),
                         ("plain", ["a", "ß", "c d"], True))
        self.assertEqual(again.class_names, ["a", "ß", "c d"])
        content = torch.load(path, weights_only=True)
        older = {key: value for key, value in content.items()
                 if key not in ("content", "labels", "inverted")}
        torch.save(older, path)
        again = model.load(path)
        self.assertEqual((again.content, again.labels, again.inverted, again.class_names),
                         ("digits", None, False, ["0", "1", "2"]))
        for wrong, *words in (({"content": "other"}, "'content'", "other"),
                              ({"content": 1}, "'content'", "int"),
                              ({"content": torch.zeros(3)}, "'content'", "Tensor"),
                              ({"inverted": 1}, "'inverted'", "int"),
                              ({"labels": "abc"}, "'labels'", "str"),
                              ({"labels": ["a", "b"]}, "3 names", "found 2"),
                              ({"labels": ["a", "b", 3]}, "'labels'", "int"),
                              ({"labels": ["a", "b", ""]}, "printable"),
                              ({"labels": ["a", "b", "c" * 256]}, "printable"),
                              ({"labels": ["a", "b", "\x1b[2J"]}, "printable")):
            torch.save({**content, **wrong}, path)
            self.assertNotIn("\x1b", self.fails(lambda: model.load(path), path, *words))
