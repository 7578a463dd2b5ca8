"""Tests of support/checkpoint.py: files that are no checkpoints, or no whole ones."""
import functools
import math
import re
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from unittest import mock

import model
from support import checkpoint
from support.errors import FormatError
from support.test_tools import HERE, TestCase, fuzz

import torch


class TestCheckpoint(TestCase):
    def test_state_dict_of_another_script(self):
        net = model.build("lenet").eval()
        weights = {f"module.layer{i}.w": tensor
                   for i, tensor in enumerate(net.state_dict().values())}
        path = self.folder / "other.pt"
        torch.save(weights, path)
        x = torch.randn(2, 1, 28, 28)
        self.assertTrue(torch.equal(model.load(path, name="lenet")(x), net(x)))
        self.fails(lambda: model.load(path), path, "bare state_dict", "--model")
        self.fails(lambda: model.load(path, name="wide"), path, "tensors", "wide")
        self.fails(lambda: model.load(path, name="baseline"), path, "shape")

    def test_names_where_they_are_ours(self):
        """In any order, and with any number of classes."""
        net = model.build("small", 7).eval()
        torch.save(dict(reversed(net.state_dict().items())), self.folder / "other.pt")
        again = model.load(self.folder / "other.pt", name="small")
        self.assertEqual(again.classes, 7)
        for key, tensor in net.state_dict().items():
            self.assertTrue(torch.equal(tensor, again.state_dict()[key]), key)

    def named(self, net, *renames) -> Path:
        """The weights of a network under other names: each pattern replaced in all of them."""
        weights = {}
        for name, tensor in net.state_dict().items():
            for pattern, new in renames:
                name = re.sub(pattern, new, name)
            weights[name] = tensor
        torch.save(weights, self.folder / "other.pt")
        return self.folder / "other.pt"

    def test_order_is_believed_only_where_nothing_could_be_exchanged(self):
        """norm1 and norm2 of the `small` of earlier versions have the same shapes."""
        self.enter(mock.patch.dict(model.MODELS, model.EARLIER[0]))
        net = model.build("small").eval()
        for renames in ([("^norm", "bn")], [(r"^norm(\d)", r"body.\1.bn")]):
            again = model.load(self.named(net, *renames), name="small")
            self.assertTrue(torch.equal(again.norm2.running_var, net.norm2.running_var))
        swapped = ("norm1", "bn2"), ("norm2", "bn1")
        other_words = ("norm1", "before"), ("norm2", "after")
        no_words = ("weight", "a"), ("bias", "b"), ("running_mean", "c"), ("running_var", "d")
        for renames, words in ((swapped, ("norm1.weight", "bn2.weight", "bn1.weight")),
                               (other_words, ("norm2.weight", "before.weight")),
                               (no_words, ("norm1.weight", "norm1.bias", "norm1.a"))):
            path = self.named(net, *renames)
            self.fails(lambda: model.load(path, name="small"), path, "shapes are the same", *words)
        # Nothing has the same shape as another thing of another layer, whatever the names are.
        net = model.build("lenet").eval()
        again = model.load(self.named(net, ("conv1", "z"), ("linear2", "a")), name="lenet")
        self.assertTrue(torch.equal(again.linear2.bias, net.linear2.bias))

    def test_compiled_names(self):
        net = model.build("lenet").eval()
        model.save(net, self.folder / "a.pt")
        content = torch.load(self.folder / "a.pt", weights_only=True)
        content["weights"] = {f"_orig_mod.{name}": tensor
                              for name, tensor in content["weights"].items()}
        torch.save(content, self.folder / "a.pt")
        x = torch.randn(2, 1, 28, 28)
        self.assertTrue(torch.equal(model.load(self.folder / "a.pt")(x), net(x)))

    def test_what_is_no_checkpoint(self):
        path = self.folder / "a.pt"
        net = model.build("lenet")
        for data, word in ((b"", "empty"), (b"<html>", "HTML"),
                           (b"PK\x03\x04junk", "a broken one"),
                           (b"\x80\x02junk", "before 1.6"), (b"\x89PNG", "PNG"),
                           (b"hello", "68 65 6c 6c")):
            path.write_bytes(data)
            self.fails(lambda: model.load(path), path, word)
        for content, *words in (([1], "list"), ({}, "other data"),
                                ({"a": 1}, "other data"),
                                (net, "weights_only"),
                                ({"f": print}, "weights_only")):
            torch.save(content, path)
            self.fails(lambda: model.load(path), path, *words)
        model.save(net, path)
        content = torch.load(path, weights_only=True)
        good = content["weights"]
        row = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), 0.5)
        nan = {**good, "conv2.weight": good["conv2.weight"] / 0}
        for change, *words in (
                ({"format": 99}, "format 1", "99"), ({"model": "resnet"}, "resnet"),
                ({"classes": 3}, "shape", "(10,"), ({"classes": 10**12}, "1000000000000"),
                ({"mean": "x"}, "mean", "str"), ({"std": 0.0}, "std", "1e-08"),
                ({"std": 1e-40}, "std", "1e-40"), ({"mean": 1e30}, "mean", "1e+30"),
                ({"mean": math.nan}, "mean", "nan"), ({"history": None}, "history"),
                ({"history": ["epoch 1"]}, "row of 'history'", "str"),
                ({"history": [{"epoch": 1}]}, "train_loss", "NoneType"),
                ({"run": {"settings": 3}}, "settings", "int"),
                ({"run": {"settings": {"seed": 2**70}}}, "seed", "finite"),
                ({"run": {"samples": torch.zeros(3)}}, "samples", "float32"),
                ({"run": functools.reduce(lambda inner, _: {"a": inner}, range(30), 1)}, "in each"),
                ({"run": {"samples": torch.zeros(1).expand(10**9)}}, "run.samples, found 4"),
                ({"run": {"settings": {"lr": [math.inf]}}}, "run.settings.lr.0", "inf"),
                ({"run": {"result": {"test_accuracy": "x"}}}, "test_accuracy", "str"),
                ({"history": [{**row, "train_loss": 1e308}]}, "history.0.train_loss", "1e+308"),
                ({"history": [{**row, "val_loss": -1e30}]}, "val_loss", "-1e+30"),
                ({"history": [{**row, "val_accuracy": 1.5}]}, "val_accuracy", "1.5"),
                ({"weights": {**good, "conv1.bias": torch.full((10,), 1e30)}}, "conv1.bias",
                 "1e+30"),
                ({"weights": {**good, "conv1.bias": torch.zeros(1).expand(10)}},
                 "40 bytes for weights.conv1.bias"),
                ({"weights": {**good, "conv1.bias": torch.zeros(10).to_sparse()}},
                 "weights.conv1.bias", "plain tensor"),
                ({"weights": []}, "weights"), ({"weights": nan}, "conv2.weight", "finite"),
                ({"weights": {**good, "x": 1}}, "no tensor 'x'"),
                ({"weights": {k: v for k, v in good.items() if k != "conv1.bias"}}, "lacks",
                 "conv1.bias"), ({"weights": {**good, "conv1.bias": 3}}, "conv1.bias", "int"),
                ({"weights": {**good, "conv1.bias": torch.zeros(10, dtype=torch.int64)}},
                 "conv1.bias", "int64")):
            torch.save({**content, **change}, path)
            self.fails(lambda: model.load(path), path, *words)
        self.assertRaises(FileNotFoundError, model.load, self.folder / "none.pt")

    def test_a_checkpoint_written_before(self):
        """The one that comes with the project was written by an older version."""
        net = model.load(HERE / "pretrained.pt")
        self.assertEqual(net.name, "robust")

    def test_a_checkpoint_of_an_earlier_version_is_read(self):
        for models, name in [(models, name) for models in model.EARLIER for name in models]:
            net = model.build(name, 7, models=models).eval()
            model.save(net, self.folder / "earlier.pt")
            again = model.load(self.folder / "earlier.pt")
            image = torch.rand(2, 1, 28, 28)
            torch.testing.assert_close(again(image), net(image))
            self.assertNotEqual(model.parameters(net), model.parameters(model.build(name, 7)))

    def test_older_files_have_no_other(self):
        path = self.folder / "older.pt"
        model.save(model.build("lenet", 7), path)
        content = torch.load(path, weights_only=True)
        self.assertIs(content.pop("other"), False)
        torch.save(content, path)
        self.assertIs(model.load(path).other, False)
        torch.save({**content, "other": "yes"}, path)
        self.fails(lambda: model.load(path), "'other'")


def same(a, b) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


class TestFlippedBits(TestCase):
    def test_each_bit(self):
        """Of a small file: it is refused, or the bit is one that nothing depends on, such as a date
        in the archive, and the content is the same."""
        content = {"weights": {"a": torch.arange(3.0)}, "run": {"words": "x"}, "std": 0.5}
        torch.save(content, self.folder / "a.pt")
        good = (self.folder / "a.pt").read_bytes()
        refused = 0
        for place in range(len(good)):
            data = bytearray(good)
            data[place] ^= 1 << place % 8
            try:
                self.assertTrue(same(checkpoint.unpack(bytes(data)), content), place)
            except FormatError:
                refused += 1
        self.assertGreater(refused, len(good) / 4)

    def test_the_weights_of_the_one_that_comes_with_the_project(self):
        good = (HERE / "pretrained.pt").read_bytes()
        for place in range(200_000, len(good), 200_000):
            data = bytearray(good)
            data[place] ^= 64
            path = self.file(data)
            self.fails(lambda: model.load(path), path, "a broken one", "CRC")


class TestFuzzedCheckpoint(TestCase):
    def test_any_bytes(self):
        model.save(model.build("lenet"), self.folder / "a.pt")
        torch.save(model.build("lenet").state_dict(), self.folder / "b.pt")
        samples = [(self.folder / name).read_bytes() for name in ("a.pt", "b.pt")]
        fuzz(self, lambda data: model.load(self.file(data), name="lenet"), *samples, growth=1000)

    def test_any_pickle(self):
        """What lies behind the checksums: names, shapes and types of tensors, plain values."""
        model.save(model.build("lenet"), self.folder / "a.pt")
        with zipfile.ZipFile(self.folder / "a.pt") as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        pickle, = (name for name in entries if name.endswith("data.pkl"))

        def read(data):
            with zipfile.ZipFile(self.folder / "b.pt", "w") as archive:
                for name, content in {**entries, pickle: data}.items():
                    archive.writestr(name, content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, about other protocols
                model.load(self.folder / "b.pt")
        fuzz(self, read, entries[pickle], growth=1000)

    def test_bomb(self):
        path = self.folder / "bomb.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", bytes(10**8))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.fails(lambda: model.load(path), path)
        self.assertLess(tracemalloc.get_traced_memory()[1], 10**7)
