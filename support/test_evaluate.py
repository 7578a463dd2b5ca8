"""Tests of evaluate.py as a program, and of its report."""
import json
from unittest import mock

import evaluate
import idx_data
import model
from support import splits
from support.errors import UsageError
from support.test_tools import TestCase, call, some_digits, some_net, write_digits, write_toy

import torch


class TestEvaluate(TestCase):
    """evaluate.py at the command line, on two untrained networks."""

    def setUp(self):
        super().setUp()
        self.digits = some_digits(each=8)
        write_digits(self.digits, self.folder / "data")
        self.nets = [some_net(seed=0), some_net(seed=1)]
        for seed, net in enumerate(self.nets):
            model.save(net, self.folder / f"{seed}.pt")
        self.results = [evaluate.evaluate(net, self.digits.test_images, self.digits.test_labels)
                        for net in self.nets]

    def evaluate(self, *arguments) -> tuple[str, str]:
        return call(evaluate, *arguments, "--device", "cpu", cwd=self.folder)

    def test_json_alone_and_no_report_unless_asked(self):
        out, _ = self.evaluate("0.pt", "--json")
        self.assertFalse((self.folder / "report").exists())
        found, result = json.loads(out), self.results[0]
        self.assertEqual(found["confusion"], result.confusion.tolist())
        self.assertEqual([found[key] for key in ("checkpoints", "split", "images", "errors")],
                         [["0.pt"], "test", 80, result.errors])
        self.assertAlmostEqual(found["loss"], result.loss, places=6)
        self.assertAlmostEqual(found["accuracy"], result.accuracy)
        self.assertEqual(found["parameters"], model.parameters(self.nets[0]))
        self.assertIsNone(found["report"])
        out, _ = self.evaluate("0.pt", "--json", "--report", "there")
        self.assertEqual(json.loads(out)["report"], "there")
        self.assertTrue((self.folder / "there" / "index.html").exists())

    def test_others(self):
        """Told of a network that knows them, on the data that it learned from."""
        write_toy(self.folder / "data", 80, 20)
        hashes = idx_data.load_digits(self.folder / "data").hashes()
        model.save(some_net(other=True, data=hashes), self.folder / "other.pt")
        with mock.patch.object(evaluate, "COMPOSED", 3):
            found = json.loads(self.evaluate("other.pt", "--json")[0])
            text, _ = self.evaluate("other.pt")
        others = found["others"]
        self.assertEqual(len(found["confusion"]), 10)
        self.assertTrue(0 <= others["recognised"] <= others["images"])
        self.assertIn(f"others: {others['recognised']} of {others['images']} recognised", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        model.save(some_net(other=True), self.folder / "other.pt")  # of other data
        self.assertNotIn("others", self.evaluate("other.pt", "--json")[0])
        self.assertNotIn("others", self.evaluate("0.pt", "--json")[0])
        net = some_net(other=True, data=hashes)  # of a folder that held out the last ten
        net.run["settings"]["val_count"] = 10
        model.save(net, self.folder / "other.pt")
        self.assertNotIn("others", self.evaluate("other.pt", "--json")[0])

    def test_ensemble(self):
        out, _ = self.evaluate("0.pt", "1.pt", "--json")
        found = json.loads(out)
        total = sum(evaluate.predict(net, self.digits.test_images).exp().double()
                    for net in self.nets)
        errors = int((total.argmax(1) != self.digits.test_labels).sum())
        self.assertEqual((found["errors"], len(found["members"])), (errors, 2))
        for member, result in zip(found["members"], self.results):
            self.assertEqual(member["errors"], result.errors)
        model.save(some_net(classes=12), self.folder / "12.pt")
        self.fails(lambda: self.evaluate("0.pt", "12.pt"), "knows 12", kind=UsageError)

    def test_the_text_fits_80_columns(self):
        for classes in (10, 47):
            write_digits(some_digits(classes, each=8), self.folder / "data")
            model.save(some_net(classes=classes, data={"t10k": "abc123"}), self.folder / "a.pt")
            out, _ = self.evaluate("a.pt", "a.pt")
            self.assertLessEqual(max(map(len, out.splitlines())), 80)

    def test_default_checkpoint(self):
        model.save(self.nets[0], self.folder / "model.pt")
        out, err = self.evaluate("--json")
        self.assertIn("checkpoint model.pt", err)
        self.assertEqual(json.loads(out)["checkpoints"], ["model.pt"])

    def test_splits_of_training_are_those_of_the_run(self):
        run = some_net(data=self.digits.hashes()).run  # with a seed of 7, and a quarter held out
        images, labels = splits.pick_split(self.digits, "val", run)
        training, validation = idx_data.split(80, 0.25, 7)
        self.assertTrue(torch.equal(labels, self.digits.train_labels[validation]))
        self.assertTrue(torch.equal(images, self.digits.train_images[validation]))
        images, labels = splits.pick_split(self.digits, "train", run)
        self.assertTrue(torch.equal(labels, self.digits.train_labels[training]))
        self.fails(lambda: splits.pick_split(some_digits(each=9), "val", run), "other data",
                   kind=UsageError)
        self.fails(lambda: splits.pick_split(self.digits, "val", {}), "does not say",
                   kind=UsageError)

    def test_what_a_data_set_holds_out_itself(self):
        """The last images, whatever the seed; another number of them is another split. Its test
        images may be others."""
        run = {"settings": {"val_fraction": 0.1, "seed": 1, "val_count": 3},
               "data": self.digits.hashes()}
        self.digits.val_count = 3
        self.digits.test_images = self.digits.test_images[1:]
        self.digits.test_labels = self.digits.test_labels[1:]
        images, _ = splits.pick_split(self.digits, "val", run)
        self.assertTrue(torch.equal(images, self.digits.train_images[-3:]))
        for net, seed in zip(self.nets, (1, 2)):
            net.run = {"settings": {**run["settings"], "seed": seed}}
        splits.check_together(["a", "b"], self.nets, "val", self.digits)
        older = {**run, "settings": {"val_fraction": 0.1, "seed": 1}}  # as files were before
        images, _ = splits.pick_split(self.digits, "val", older)
        self.assertTrue(torch.equal(images, self.digits.train_images[-3:]))
        self.digits.val_count = 0
        self.fails(lambda: splits.pick_split(self.digits, "val", run), "other data",
                   kind=UsageError)

    def test_logits_without_bounds_are_refused(self):
        """Each weight is one that a checkpoint may hold; it is their product that is not."""
        net = self.nets[0]
        with torch.no_grad():
            for weights in net.parameters():
                weights.fill_(1e8)
        model.save(net, self.folder / "large.pt")
        for more in ((), ("--json",)):
            self.fails(lambda: self.evaluate("large.pt", *more), "large.pt: expected finite logits",
                       "small")
        self.assertFalse((self.folder / "report").exists())

    def test_a_folder_that_is_no_report_s(self):
        """Nothing in it is replaced, and nothing is measured before that is said."""
        for name, more in (("index.html", ()), ("curves.svg", ("--pictures", "curves"))):
            path = self.file(b"<p>my own", f"site/{name}")
            self.fails(lambda: self.evaluate("none.pt", "--report", "site", *more), "--report site",
                       name, "not that of a report", kind=UsageError)
            self.assertEqual(path.read_bytes(), b"<p>my own")
            path.unlink()
        self.file(b"<p>my own", "site/other.html")
        for _ in range(2):  # a report's own files are replaced
            self.evaluate("0.pt", "--report", "site")
        self.assertEqual((self.folder / "site/other.html").read_bytes(), b"<p>my own")

    def test_wrong_settings(self):
        for arguments, words in ((("--pictures", "filter"), "did you mean filters"),
                                 (("--split", "vla"), "did you mean val")):
            self.fails(lambda: self.evaluate("0.pt", *arguments), words, kind=UsageError)
