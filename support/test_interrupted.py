"""Tests of support/interrupted.py: runs that are killed, interrupted, two at a time, or in vain."""
import json
import os
import signal
import subprocess
import sys
import time
import unittest
from dataclasses import replace
from pathlib import Path

import model
import train
from support import checkpoint, interrupted
from support.errors import FormatError, UsageError
from support.test_tools import HERE, ToyTestCase, call, run, write_toy

import torch


# Runs a script in a process that sends itself a signal, at the so many-th of some events that
# Python tells (sys.addaudithook) whose first argument holds a word.
AT_EVENT = """
import os, runpy, sys
count, number, word, events, *sys.argv = sys.argv[1:]
left = int(count)

def hook(event, arguments):
    global left
    if event in events.split() and word in str(arguments[:1]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), int(number))

sys.addaudithook(hook)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FOREVER = 10**9  # epochs


@unittest.skipIf(os.name == "nt", "signals are another thing on Windows")
class TestInterrupted(ToyTestCase):
    def start(self, *arguments, at=()):
        # A shell ignores Ctrl-C in what it starts in the background, and that is inherited.
        def heed():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        program = ["-c", AT_EVENT, *map(str, at)] if at else []
        return subprocess.Popen([sys.executable, *program, str(HERE / "train.py"), "--device",
                                 "cpu", "--data", str(self.data), *map(str, arguments)],
                                cwd=self.folder, preexec_fn=heed, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "2"})

    def wait_for(self, path, process):
        until = time.monotonic() + 300
        while not path.exists():
            self.assertIsNone(process.poll(), process.stderr.read() if process.poll() is not None
                              else "")
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    def assert_same(self, a, b):
        a, b = model.load(self.folder / a), model.load(self.folder / b)
        self.assertEqual(a.history, b.history)
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values()):
            self.assertTrue(torch.equal(x, y), name)

    def test_resumed_is_bit_for_bit_the_same_for_every_recipe(self):
        def begun(name):
            recipe = replace(train.RECIPES[name], epochs=3, batch_size=100)
            run = train.start(recipe, self.digits, seed=1, device="cpu", precision="float32")
            run.net.run = {"settings": {"seed": 1}, "data": {}}
            return run

        path = self.folder / "state"
        for name in train.RECIPES:
            straight = begun(name)
            for _ in train.epochs(straight):
                pass
            broken = begun(name)
            next(train.epochs(broken))  # the first epoch, and no more
            checkpoint.save_torch(interrupted.snapshot(broken), path)
            again = begun(name)
            interrupted.resume(again, path)
            self.assertEqual(len(again.net.history), 1)
            for _ in train.epochs(again):
                pass
            self.assertEqual(straight.net.history, again.net.history, name)
            expected = train.finish(straight).state_dict()
            for key, tensor in train.finish(again).state_dict().items():
                self.assertTrue(torch.equal(tensor, expected[key]), f"{name}: {key}")

    def test_killed_at_any_instant(self):
        """Just before a file is opened or renamed, in several runs, each later than the last."""
        arguments = ("--recipe", "dropout", "--epochs", 8)
        self.start(*arguments, "--out", "straight.pt").communicate()
        for count in (2, 7, 9):
            process = self.start(*arguments, "--out", "killed.pt", "--resume",
                                 at=(count, int(signal.SIGKILL), "killed.pt", "open os.rename"))
            process.communicate()
            self.assertEqual(process.returncode, -signal.SIGKILL, count)
            for path in self.folder.glob("killed.pt*"):
                checkpoint.read_torch(path)
        self.assertTrue((self.folder / "killed.pt.resume").exists())
        output, error = self.start(*arguments, "--out", "killed.pt", "--resume").communicate()
        self.assertIn("best epoch", output, error)
        self.assert_same("straight.pt", "killed.pt")
        self.assertEqual(len(model.load(self.folder / "killed.pt").history), 8)
        again = run("train.py", "--device", "cpu", "--data", self.data, *arguments, "--out",
                    "killed.pt", "--resume", "--json", cwd=self.folder, check=0)
        self.assertIn("reached its end", again.stderr)
        self.assertEqual(json.loads(again.stdout)["epochs"], 8)

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            out = self.folder / f"{number}.pt"
            process = self.start("--recipe", "lenet", "--epochs", FOREVER, "--out", out)
            self.wait_for(Path(f"{out}.resume"), process)
            process.send_signal(number)
            error = process.communicate()[1]
            self.assertEqual(process.returncode, 130, error)
            self.assertEqual(error.count("\n"), 1, error)
            self.assertIn(str(out), error)
            self.assertIn("--resume", error)
            model.load(out)

    def test_other_settings_are_refused(self):
        process = self.start("--recipe", "lenet", "--epochs", FOREVER)
        self.wait_for(self.folder / "model.pt.resume", process)
        process.kill()
        process.communicate()
        before = (self.folder / "model.pt.resume").read_bytes()
        for change, *words in ((["--lr", 0.5], "lr 0.001, now 0.5"),
                               (["--seed", 3], "seed 0, now 3"),
                               (["--epochs", 4], f"epochs {FOREVER}, now 4"), (["--data", write_toy(
                                   self.folder / "other", 700)], "data")):
            self.refused(["--recipe", "lenet", "--epochs", FOREVER, *change], *words)
        self.assertEqual((self.folder / "model.pt.resume").read_bytes(), before)
        self.file(b"<html>", "model.pt.resume")
        with self.assertRaises(FormatError) as caught:  # the file once, and what to do
            call(train, "--data", self.data, "--resume", cwd=self.folder)
        self.assertEqual(str(caught.exception), "model.pt.resume: expected a checkpoint, found an "
                         "HTML page; train anew without --resume")
        torch.save({"run": {"settings": {}}}, self.folder / "model.pt.resume")
        self.refused([], "--resume")

    def refused(self, arguments, *words):
        arguments = ["--data", self.data, *arguments, "--resume"]
        self.fails(lambda: call(train, *arguments, cwd=self.folder), *words,
                   kind=(FormatError, UsageError))

    def test_a_loss_that_is_not_finite(self):
        call(train, "--data", self.data, "--recipe", "lenet", "--epochs", 1, cwd=self.folder)
        before = (self.folder / "model.pt").read_bytes()
        done = run("train.py", "--data", self.data, "--recipe", "lenet", "--lr", 1e30,
                   cwd=self.folder, check=2)
        self.assertRegex(done.stderr,
                         r"error: the loss became (nan|inf) in epoch 1; try --lr 0\.01\n$")
        self.assertEqual((self.folder / "model.pt").read_bytes(), before)
