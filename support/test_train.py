"""Tests of train.py as a program: whole runs on a small data set."""
import contextlib
import copy
import gc
import io
import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import evaluate
import idx_data
import infer
import model
import train
from support import png
from support.compositions import drawn, examples
from support.errors import UsageError
from support.mnist_style import draw, place
from support.test_tools import (HERE, ToyTestCase, call, picture, run, some_digits, write_toy,
                                written, written_digit)

import numpy as np
import torch
import torch.nn.functional as F


class TestTrain(ToyTestCase):
    """Whole runs on a small data set, some in a process of their own."""

    def train(self, *arguments, check=0, **more):
        return run("train.py", "--data", self.data, *arguments, cwd=self.folder, check=check,
                   **more)

    def here(self, *arguments, **more):
        return call(train, "--data", self.data, *arguments, cwd=self.folder, **more)

    def weights(self, name="model.pt"):
        return model.load(self.folder / name).state_dict()

    def test_it_learns_and_says_what_it_did(self):
        done = self.train("--epochs", 6, "--batch-size", 32, "--json", "--val-fraction", 0.1)
        result = json.loads(done.stdout)
        self.assertGreater(result["test_accuracy"], 0.9)
        self.assertEqual((result["recipe"], result["model"], result["seed"], result["epochs"],
                          result["checkpoint"]),
                         ("small", "small", 0, 6, "model.pt"))
        net = model.load(self.folder / "model.pt")
        self.assertEqual(result["parameters"], model.parameters(net))
        self.assertEqual(len(net.history), 6)
        best = net.history[result["best_epoch"] - 1]
        self.assertEqual(best["val_loss"], min(row["val_loss"] for row in net.history))
        self.assertEqual(best["val_accuracy"], result["val_accuracy"])
        digits = idx_data.load_digits(self.data)
        again = evaluate.evaluate(net, digits.test_images, digits.test_labels)
        self.assertEqual(again.accuracy, result["test_accuracy"])
        training, _ = idx_data.split(600, 0.1, 0)
        mean, _ = idx_data.mean_std(digits.train_images[training])
        self.assertEqual((round(net.mean, 6), net.run["data"]), (round(mean, 6), digits.hashes()))
        for key in ("recipe", "command", "settings", "versions", "machine", "data", "result"):
            self.assertTrue(net.run[key], key)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["model.pt"])

    def test_what_a_run_learned_from_is_given_back_when_it_is_over(self):
        """At once: nothing of the run holds on to it. (Torch keeps something of the very first.)"""
        self.addCleanup(gc.enable)
        for _ in range(2):
            gc.collect()
            gc.disable()
            begun = train.start(train.RECIPES["lenet"], some_digits(), 0, "cpu", "float32")
            train.train_epoch(begun)
            images = weakref.ref(begun.images)
            del begun
        self.assertIsNone(images())

    def test_the_validation_figures_are_those_of_the_held_out_images(self):
        self.here("--recipe", "lenet", "--epochs", 4, "--val-fraction", 0.2, "--seed", 3)
        net, digits = model.load(self.folder / "model.pt"), idx_data.load_digits(self.data)
        index = idx_data.split(600, 0.2, 3)[1]
        result = evaluate.evaluate(net, digits.train_images[index], digits.train_labels[index])
        best = max(row["epoch"] for row in net.history if row["best"]) - 1
        self.assertEqual(result.accuracy, net.history[best]["val_accuracy"])
        self.assertAlmostEqual(result.loss, net.history[best]["val_loss"], 4)

    def test_same_seed_same_weights(self):
        digits = idx_data.load_digits(self.data)
        for name in ("small", "dropout", "robust"):  # every recipe: support/test_checkpoint.py
            short = replace(train.RECIPES[name], epochs=1, batch_size=128)
            a, b, c = (train.train(short, digits, seed, "cpu", "float32").state_dict()
                       for seed in (5, 5, 6))
            self.assertTrue(all(torch.equal(a[key], b[key]) for key in a), name)
            self.assertFalse(all(torch.equal(a[key], c[key]) for key in a), name)

    def test_the_means_are_those_of_images_that_are_not_augmented(self):
        digits = idx_data.load_digits(self.data)
        images = digits.train_images[digits.split(0.05, 1)[0]]
        for precise in (True, False):
            recipe = replace(train.RECIPES["small"], epochs=2, precise_bn=precise)
            net = train.train(recipe, digits, 1, "cpu", "float32")
            x = net[1](net[0](idx_data.standardise(images, net.mean, net.std)))  # norm1 takes it
            away = (net.norm1.running_mean - x.mean((0, 2, 3))).abs().max().item()
            self.assertEqual(away < 1e-3, precise, away)

    def test_an_epoch_is_that_of_a_textbook(self):
        digits = idx_data.load_digits(self.data)
        recipe = train.Recipe("", "lenet", batch_size=32)
        run = train.start(recipe, digits, seed=3, device="cpu", precision="float32")
        net = copy.deepcopy(run.net)
        order = torch.randperm(len(run.labels), generator=torch.Generator().manual_seed(3))
        loss, accuracy = train.train_epoch(run)

        optimiser = torch.optim.Adam(net.parameters(), lr=0.001)
        losses, correct = [], 0
        for i in range(0, len(order), 32):
            index = order[i : i + 32]
            x = (run.images[index].unsqueeze(1) / 255 - net.mean) / net.std
            logits = net(x)
            batch_loss = F.cross_entropy(logits, run.labels[index])
            optimiser.zero_grad()
            batch_loss.backward()
            optimiser.step()
            losses += [batch_loss.item()] * len(index)
            correct += (logits.argmax(1) == run.labels[index]).sum().item()

        self.assertAlmostEqual(loss, np.mean(losses), 4)
        self.assertAlmostEqual(accuracy, correct / len(order), delta=2.5 / len(order))
        for ours, theirs in zip(run.net.parameters(), net.parameters()):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)

    def test_it_counts_the_last_short_batch(self):
        digits = idx_data.load_digits(self.data)
        recipe = train.Recipe("", "lenet", batch_size=100, lr=1e-30)  # nothing is learned
        run = train.start(recipe, digits, device="cpu", precision="float32")
        run.images, run.labels = run.images[:250], run.labels[:250]
        loss, accuracy = train.train_epoch(run)
        expected = evaluate.evaluate(run.net, run.images, run.labels)
        self.assertAlmostEqual(loss, expected.loss, 5)
        self.assertEqual(accuracy, expected.accuracy)

    def test_a_last_batch_of_one_image(self):
        """It has no variance, by which batch normalisation would divide."""
        digits = idx_data.load_digits(self.data)
        for name in train.RECIPES:
            recipe = replace(train.RECIPES[name], forms=0, composed=0)
            run = train.start(recipe, digits, device="cpu", precision="float32")
            run.images = run.images[: recipe.batch_size + 1]
            run.labels = run.labels[: recipe.batch_size + 1]
            train.train_epoch(run)
            weights = run.net.state_dict().values()
            self.assertTrue(all(tensor.isfinite().all() for tensor in weights), name)

    def test_from_another_program(self):
        """One line trains; nothing is written, nothing is printed."""
        code = ("import train, idx_data; digits = idx_data.load_digits('data'); "
                "net = train.train(train.RECIPES['quick'], digits); assert len(net.history) == 1")
        write_toy(self.folder / "data")
        done = subprocess.run([sys.executable, "-c", code], cwd=self.folder, text=True,
                              capture_output=True, env={**os.environ, "PYTHONPATH": str(HERE)})
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["data"])

    def test_the_test_set_chooses_nothing(self):
        """Other test images and labels: the same weights, to the bit."""
        digits = idx_data.load_digits(self.data)
        other = replace(digits, test_images=255 - digits.test_images,
                        test_labels=digits.test_labels.flip(0))
        recipe = replace(train.RECIPES["small"], epochs=2, batch_size=64)
        a = train.train(recipe, digits, device="cpu").state_dict()
        b = train.train(recipe, other, device="cpu").state_dict()
        self.assertTrue(all(torch.equal(a[key], b[key]) for key in a))

    def test_the_validation_images_teach_nothing(self):
        """Other pixels in them: the first epoch, and the mean and standard deviation, stay. (With
        label smoothing they choose the temperature.)"""
        digits = idx_data.load_digits(self.data)
        recipe = replace(train.RECIPES["small"], epochs=1, batch_size=64, label_smoothing=0)
        _, held_out = idx_data.split(len(digits.train_labels), recipe.val_fraction, 0)
        images = digits.train_images.clone()
        images[held_out] = 255 - images[held_out]
        other = replace(digits, train_images=images)
        a, b = (train.train(recipe, data, device="cpu") for data in (digits, other))
        self.assertEqual((a.mean, a.std), (b.mean, b.std))
        self.assertNotEqual(a.history[0]["val_loss"], b.history[0]["val_loss"])
        weights = b.state_dict()
        self.assertTrue(all(torch.equal(tensor, weights[key])
                            for key, tensor in a.state_dict().items()))

    def test_the_schedule_in_a_run(self):
        self.here("--recipe", "lenet", "--epochs", 5, "--schedule", "step", "--step-size", 2,
                  "--gamma", 0.5, "--lr", 0.004)
        rates = [row["lr"] for row in model.load(self.folder / "model.pt").history]
        self.assertEqual(rates, [0.004, 0.004, 0.002, 0.002, 0.001])

    def test_seeds(self):
        out, err = self.here("--recipe", "lenet", "--epochs", 1, "--seeds", 2, "--seed", 4,
                             "--json", "--out", "x/y.pt")
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([line["seed"] for line in lines], [4, 5])
        self.assertEqual([line["checkpoint"] for line in lines],
                         [str(Path("x/y-4.pt")), str(Path("x/y-5.pt"))])
        mean = np.mean([line["test_accuracy"] for line in lines])
        self.assertIn(f"2 seeds: test accuracy {mean:.2%} ±", err)

    def test_nothing_learned_replaces_nothing(self):
        """A rate of almost nothing gives one answer to everything; also where a model is there."""
        before = self.file(b"a model", "model.pt").read_bytes()
        arguments = "--recipe", "lenet", "--epochs", 1, "--lr", 1e-12
        out, _ = self.here(*arguments, "--json", status=1)
        self.assertIsNone(json.loads(out)["checkpoint"])
        out, _ = self.here(*arguments, status=1)
        self.assertIn("no better than always answering the most frequent class: not saved", out)
        self.assertEqual([(path.name, path.read_bytes()) for path in self.folder.iterdir()],
                         [("model.pt", before)])

    def test_fewer_images_than_in_a_batch(self):
        """All of them are a batch; but a number that was given is an error: test_wrong_settings."""
        data = write_toy(self.folder / "few", 40, 20, classes=2)
        out, _ = call(train, "--data", data, "--recipe", "lenet", "--epochs", 15, "--lr", 0.01,
                      "--val-fraction", 0.5, cwd=self.folder)
        self.assertIn("batches of 20 images: there are no more to train on", out)
        self.assertEqual(len(model.load(self.folder / "model.pt").history), 15)

    def test_patience_stops(self):
        out, _ = self.here("--recipe", "lenet", "--epochs", 30, "--lr", 1e-12, "--patience", 2,
                           "--json", status=1)  # nothing was learned
        result = json.loads(out)
        self.assertLess(result["epochs"], 30)
        self.assertEqual(result["epochs"], result["best_epoch"] + 2)

    def kept(self, labels, seed=0) -> Path:
        """A folder of drawings as the page to draw on keeps them: of 0 as a triangle, and of other
        digits as they are."""
        rng = np.random.default_rng(seed)
        corners = np.array([(1, 0), (0, 0.3), (1, 0.6), (1, 0)])
        for i, label in enumerate(labels):
            page = np.pad(written_digit(label, 80, 7), 20)
            if label == 0:
                points = 30 + 80 * (corners + rng.normal(0, 0.04, (4, 2)))
                page = drawn((140, 110), points, 7)
            png.write_png(self.folder / f"drawn{seed}/train/{label}/{i}.png", place(draw(page)))
        return self.folder / f"drawn{seed}"

    def test_from_a_checkpoint_it_learns_some_more_and_forgets_little(self):
        base = infer.own_finder()
        zeros = idx_data.load_digits(self.kept([0] * 30 + [1], seed=1)).train_images[:30]
        before = evaluate.predict_all(base, zeros).argmax(1)
        self.assertLess((before == 0).float().mean(), 0.5)
        folder = self.kept([0] * 20 + list(range(1, 10)) * 2)
        out, _ = self.here("--from", HERE / "pretrained.pt", "--json", "--data", folder,
                           "--epochs", 10, "--lr", 0.0004, "--out", "mine.pt")
        result = json.loads(out)
        self.assertEqual((result["recipe"], result["model"], result["test_accuracy"]),
                         ("fine-tuning", "robust", None))
        mine = model.load(self.folder / "mine.pt")
        after = evaluate.predict_all(mine, zeros).argmax(1)
        self.assertGreater((after == 0).float().mean(), 0.8)
        self.assertEqual((mine.classes, mine.other, mine.mean, mine.std),
                         (10, True, base.mean, base.std))
        self.assertEqual(len(mine.history), 10)
        weights = mine.state_dict()
        for name, tensor in base.state_dict().items():
            if "running" in name:  # what batch normalisation knows
                self.assertTrue(torch.equal(tensor, weights[name]), name)
        # It still finds digits, and tells them from what is none.
        rows, = infer.read_pictures(mine, mine, [picture(written("2026"))[..., :3]])
        self.assertEqual([reading.digit for row in rows for reading in row], [2, 0, 2, 6])
        images, labels = (torch.from_numpy(part) for part in
                          examples(self.digits.test_images.numpy(),
                                   self.digits.test_labels.numpy(), range(20), 5))
        others = images[labels == 10]
        was, now = (evaluate.predict_all(net, others).argmax(1) == 10 for net in (base, mine))
        self.assertGreater(now.sum(), 0.9 * was.sum())

    def test_from_a_checkpoint_that_does_not_fit(self):
        self.here("--recipe", "lenet", "--epochs", 1, "--out", "ten.pt")
        fit = ("--from", "ten.pt", "--epochs", 1)
        done = self.train(*fit, "--recipe", "quick", check=2)
        self.error_line(done, "ten.pt holds the network lenet", "trains quick", "leave --recipe")
        twelve = write_toy(self.folder / "twelve", 60, 12, classes=12)
        self.fails(lambda: self.here(*fit, "--data", twelve), "knows 10 classes", "twelve has 12",
                   kind=UsageError)
        self.fails(lambda: self.here("--from", "none.pt"), "none.pt", kind=FileNotFoundError)
        self.here(*fit, "--out", "more.pt")
        self.fails(lambda: self.here("--from", "more.pt", "--epochs", 1, "--out", "more.pt",
                                     "--resume"), "from ten.pt, now more.pt", kind=UsageError)
        net = model.load(self.folder / "more.pt")
        self.assertEqual((net.name, net.run["settings"]["from"]), ("lenet", "ten.pt"))

    def test_wrong_settings(self):
        def message(*arguments):
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    train.main(["--data", str(self.data), *map(str, arguments)])
            except UsageError as error:
                return str(error)
            self.fail(f"{arguments} went through")

        os.chdir(self.folder)
        self.addCleanup(os.chdir, HERE)
        for arguments, *words in [
                (["--recipe", "smal"], "smal", "did you mean small"), (["--device", "gpu"], "gpu"),
                (["--device", "cuda:99"], "cuda:99"), (["--precision", "half"], "half"),
                (["--epochs", 0], "--epochs", "from 1"), (["--epochs", "x"], "--epochs", "int"),
                (["--batch-size", 0], "--batch-size"),
                (["--batch-size", 10**6], "--batch-size", "540"), (["--lr", 0], "--lr"),
                (["--lr", "nan"], "--lr", "nan"), (["--lr", "inf"], "--lr"),
                (["--schedule", "stp"], "--schedule", "did you mean step"),
                (["--step-size", 0], "--step-size"), (["--gamma", 2], "--gamma"),
                (["--val-fraction", 0], "--val-fraction"),
                (["--val-fraction", 1], "--val-fraction"),
                (["--val-fraction", 1e-9], "--val-fraction", "leaves 0"),
                (["--patience", -1], "--patience"), (["--seed", -1], "--seed"),
                (["--epochs", 10**20], "--epochs", "1000000000"),
                (["--seed", 2**63 - 1, "--seeds", 2], "--seeds", "from 1 to 1"),
                (["--seeds", 2**63], "--seeds", "from 1 to 10000"),
                (["--from", ""], "--from", "empty"), (["--seeds", 0], "--seeds"),
                (["--bogus"], "--bogus"),
                (["--out", self.folder], "--out", "folder"), (["--out", "."], "--out"),
                (["--out", "/", "--seeds", 2], "--out")]:
            if "--recipe" not in arguments:
                arguments = ["--recipe", "lenet", *arguments]
            error = message(*arguments)
            self.assertNotIn("\n", error)
            for word in map(str, words):
                self.assertIn(word, error)
        self.assertEqual(list(self.folder.iterdir()), [])
        done = self.train("--lr", "-1", check=2)
        self.assertEqual((done.stdout, done.stderr),
                         ("", "error: --lr must be more than 0, not -1.0\n"))

    def test_list(self):
        text, _ = call(train, "--list")
        for name, recipe in train.RECIPES.items():
            line = next(line for line in text.splitlines() if line.startswith(name + " "))
            net = model.build(recipe.model, other=recipe.composed > 0)
            self.assertIn(f"{model.parameters(net):,}", line)
