"""Tests of support/checkpoint.py: files that are no checkpoints, or no whole ones."""
import math
import tracemalloc
import zipfile

import model
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
        for data, word in ((b"", "empty"), (b"<html>", "HTML"), (b"PK\x03\x04junk", "weights_only"),
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
        nan = {**good, "conv2.weight": good["conv2.weight"] / 0}
        for change, *words in (
                ({"format": 99}, "format 1", "99"), ({"model": "resnet"}, "resnet"),
                ({"classes": 3}, "shape", "(10,"), ({"classes": 10**12}, "1000000000000"),
                ({"mean": "x"}, "mean", "str"), ({"std": 0.0}, "deviation"),
                ({"mean": math.nan}, "nan"), ({"history": None}, "history"),
                ({"history": ["epoch 1"]}, "row of 'history'", "str"),
                ({"history": [{"epoch": 1}]}, "train_loss", "NoneType"),
                ({"run": {"settings": 3}}, "settings", "int"),
                ({"run": {"settings": {"seed": 2**70}}}, "seed", "finite"),
                ({"run": {"samples": torch.zeros(3)}}, "samples", "float32"),
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


class TestFuzzedCheckpoint(TestCase):
    def test_any_bytes(self):
        model.save(model.build("lenet"), self.folder / "a.pt")
        torch.save(model.build("lenet").state_dict(), self.folder / "b.pt")
        samples = [(self.folder / name).read_bytes() for name in ("a.pt", "b.pt")]
        fuzz(self, lambda data: model.load(self.file(data), name="lenet"), *samples, growth=1000)

    def test_bomb(self):
        path = self.folder / "bomb.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", bytes(10**8))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.fails(lambda: model.load(path), path)
        self.assertLess(tracemalloc.get_traced_memory()[1], 10**7)
