"""Tests of support/interrupted.py: runs that are killed, interrupted, two at a time, or in vain."""
import contextlib
import copy
import io
import json
import os
import signal
import subprocess
import sys
import time
import unittest
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import model
import train
from support import checkpoint, interrupted
from support.command_line import heed_signals
from support.errors import FormatError, UsageError
from support.test_tools import HERE, ToyTestCase, call, heed_all, run, write_toy

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
        program = ["-c", AT_EVENT, *map(str, at)] if at else []
        return subprocess.Popen([sys.executable, *program, str(HERE / "train.py"), "--device",
                                 "cpu", "--data", str(self.data), *map(str, arguments)],
                                cwd=self.folder, preexec_fn=heed_all, stdout=subprocess.PIPE,
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
        digits = replace(self.digits, train_images=self.digits.train_images[:200],
                         train_labels=self.digits.train_labels[:200])

        def begun(name):
            recipe = replace(train.RECIPES[name], epochs=3, batch_size=50)
            run = train.start(recipe, digits, seed=1, device="cpu", precision="float32")
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
        """Just before a file is opened, renamed or removed, in several runs, each later than the
        last: there is always a model, the older one or the new one, and it goes on."""
        arguments = ("--recipe", "dropout", "--epochs", 4)
        self.start(*arguments, "--out", "straight.pt").communicate()
        out = self.file(b"an older model", "killed.pt")
        # Before the second state is written; before the older model is kept; before the new one is
        # in its place; before the state is removed.
        for count, is_new in ((5, False), (13, False), (9, False), (10, True)):
            process = self.start(*arguments, "--out", "killed.pt", "--resume",
                                 at=(count, int(signal.SIGKILL), "killed", "open os.rename "
                                     "os.remove"))
            process.communicate()
            self.assertEqual(process.returncode, -signal.SIGKILL, count)
            checkpoint.read_torch(f"{out}.resume")
            self.assertEqual(out.read_bytes() != b"an older model", is_new)
        self.assertEqual((self.folder / "killed.previous.pt").read_bytes(), b"an older model")
        self.assert_same("straight.pt", "killed.pt")
        again = run("train.py", "--device", "cpu", "--data", self.data, *arguments, "--out",
                    "killed.pt", "--resume", "--json", cwd=self.folder, check=0)
        self.assertIn("reached its end", again.stderr)
        self.assertEqual(json.loads(again.stdout)["epochs"], 4)
        self.assertFalse(Path(f"{out}.resume").exists())

    def test_interrupted_in_the_second_of_several_seeds(self):
        process = self.start("--recipe", "quick", "--batch-size", 32, "--seeds", 3,
                             at=(1, int(signal.SIGINT), "model-1.pt.resume", "os.rename"))
        error = process.communicate()[1]
        self.assertEqual(process.returncode, 130, error)
        self.assertIn("finished before it: model-0.pt\n", error)
        self.assertNotIn("model-2.pt", error)

    def test_signals(self):
        """Until then, what is in `out` stays, and no other run may write it. Then the best model so
        far is there, the former one beside it, and no temporary file."""
        for number in (signal.SIGINT, signal.SIGHUP):
            out = self.file(b"an older model", f"{number}/model.pt")
            process = self.start("--recipe", "lenet", "--epochs", FOREVER, "--out", out)
            self.wait_for(Path(f"{out}.resume"), process)
            self.assertEqual(out.read_bytes(), b"an older model")
            link = self.folder / f"link-{number}"
            link.symlink_to(out)
            for name in (out, link):
                self.refused(["--out", name], name, "another training is writing it")
            link.unlink()
            process.send_signal(number)
            error = process.communicate()[1]
            self.assertEqual(process.returncode, 130, error)
            *_, kept, last = error.splitlines()
            self.assertIn(f"model.previous.pt is the model that was {out} before", kept)
            self.assertIn(f"the best model so far is in {out}; go on with", last)
            self.assertIn("--resume", last)
            self.assertGreater(len(model.load(out).history), 0)
            self.assertEqual((out.parent / "model.previous.pt").read_bytes(), b"an older model")
            self.assertEqual(sorted(path.name for path in out.parent.iterdir()),
                             ["model.previous.pt", "model.pt", "model.pt.resume"])

    def test_polite_signals_are_as_ctrl_c_and_nohup_still_protects(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            for before, after in ((signal.SIG_DFL, signal.default_int_handler),
                                  (signal.SIG_IGN, signal.SIG_IGN)):
                signal.signal(number, before)
                heed_signals()
                self.assertEqual(signal.getsignal(number), after)

    def test_other_settings_are_refused(self):
        process = self.start("--recipe", "lenet", "--epochs", FOREVER)
        self.wait_for(self.folder / "model.pt.resume", process)
        process.kill()
        process.communicate()
        self.assertEqual((self.folder / ".model.pt.lock").read_bytes(), b"")
        before = (self.folder / "model.pt.resume").read_bytes()
        for change, *words in ((["--lr", 0.5], "lr 0.001, now 0.5"),
                               (["--seed", 3], "seed 0, now 3"),
                               (["--epochs", 4], f"epochs {FOREVER}, now 4"), (["--data", write_toy(
                                   self.folder / "other", 700)], "data")):
            self.refused(["--recipe", "lenet", "--epochs", FOREVER, *change], *words)
        self.assertEqual((self.folder / "model.pt.resume").read_bytes(), before)
        self.assertFalse((self.folder / ".model.pt.lock").exists())  # left by no other run
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


class CtrlC(io.StringIO):
    """Standard output: when something that starts so is printed, Ctrl-C is pressed."""
    def __init__(self, start: str):
        super().__init__()
        self.start = start

    def write(self, text: str) -> int:
        if text.startswith(self.start):
            raise KeyboardInterrupt
        return super().write(text)


class TestInPlace(ToyTestCase):
    """What lies in `out`, and beside it, after runs that end in one way or another."""

    RUN = ("--recipe", "lenet", "--epochs", 3, "--device", "cpu")

    def train(self, *arguments, status=0):
        return call(train, "--data", self.data, *self.RUN, *arguments, cwd=self.folder,
                    status=status)

    def interrupt(self, epoch: int, *arguments) -> str:
        """Ctrl-C at the end of an epoch, or before the first one; returns what is said then."""
        start = f"{epoch:>5} " if epoch else "seed"
        os.chdir(self.folder)
        self.addCleanup(os.chdir, HERE)
        with contextlib.redirect_stdout(CtrlC(start)), \
                contextlib.redirect_stderr(io.StringIO()), \
                self.assertRaises(KeyboardInterrupt) as caught:
            train.main(["--data", str(self.data), *map(str, [*self.RUN, *arguments])])
        return str(caught.exception)

    def bytes(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def test_interrupted_resumed_replaced(self):
        self.file(b"an older model", "model.pt")
        self.assertIn("best model so far is in model.pt; go on", self.interrupt(2))
        self.assertEqual(len(model.load(self.folder / "model.pt").history), 2)
        self.assertNotIn("result", model.load(self.folder / "model.pt").run)
        self.assertEqual(self.bytes("model.previous.pt"), b"an older model")
        self.interrupt(3, "--resume")
        self.train("--resume")
        self.assertEqual(self.names(), ["model.previous.pt", "model.pt"])
        self.assertEqual(self.bytes("model.previous.pt"), b"an older model")  # not of this run
        again, ours = (model.load(self.folder / name) for name in self.straight())
        self.assertEqual(again.history, ours.history)
        for key, tensor in ours.state_dict().items():
            self.assertTrue(torch.equal(tensor, again.state_dict()[key]), key)
        # It has reached its end; another run is another model, and keeps this one.
        finished = self.bytes("model.pt")
        out, err = self.train("--resume", "--json")
        self.assertIn("reached its end", err)
        self.assertEqual(json.loads(out)["checkpoint"], "model.pt")
        _, err = self.train("--lr", 0.003)
        self.assertIn("model.pt is there already", err)
        self.assertIn("model.previous.pt is the model that was model.pt before", err)
        self.assertEqual(self.bytes("model.previous.pt"), finished)

    def straight(self) -> tuple[str, str]:
        self.train("--out", "straight.pt")
        return "straight.pt", "model.pt"

    def test_a_seed_whose_model_is_of_an_earlier_run(self):
        """The run that trained the seeds before it has said that it would replace it."""
        self.train("--lr", 0.003)
        out = self.folder / "model.pt"
        self.fails(lambda: interrupted.finished(out, {}, False), "--resume", kind=UsageError)
        self.assertIsNone(interrupted.finished(out, {"settings": {"lr": 0.001}}, True))
        out.rename(self.folder / "m-1.pt")
        self.train("--out", "m-0.pt")
        done, err = self.train("--seeds", 2, "--out", "m.pt", "--resume", "--json")
        self.assertIn("m-0.pt: this run has reached its end already", err)
        self.assertEqual([json.loads(line)["seed"] for line in done.splitlines()], [0, 1])
        self.assertEqual(model.load(self.folder / "m-1.pt").run["settings"]["lr"], 0.001)

    def test_a_name_that_is_a_folder(self):
        (self.folder / "a-1.pt.resume").mkdir()
        self.fails(lambda: interrupted.checkpoints(self.folder / "a.pt", range(3)), "a-1.pt.resume",
                   "folder", kind=UsageError)
        self.assertEqual(len(interrupted.checkpoints(self.folder / "a.pt", range(1))), 1)

    def test_interrupted_too_early(self):
        """In the first epoch; and where the best epoch so far is worth nothing."""
        before = self.file(b"an older model", "model.pt").read_bytes()
        self.assertIn("no epoch was finished", self.interrupt(0))
        self.assertEqual((self.names(), self.bytes("model.pt")), (["model.pt"], before))
        said = self.interrupt(1, "--lr", 1e-12)
        self.assertIn("no better than always answering the most frequent class", said)
        self.assertIn("--resume", said)
        self.assertEqual((self.names(), self.bytes("model.pt")),
                         (["model.pt", "model.pt.resume"], before))

    def test_what_was_learned(self):
        """Better than the most frequent class, which three of these five have."""
        run = SimpleNamespace(net=SimpleNamespace(), val_labels=torch.tensor([4, 1, 1, 1, 0]))
        for accuracy, learned in ((0.4, False), (0.6, False), (0.8, True)):
            run.net.history = [{"best": True, "val_accuracy": accuracy},
                               {"best": False, "val_accuracy": 0.9}]
            self.assertEqual(interrupted.has_learned(run), learned)
        run.val_labels = torch.tensor([3])
        run.net.history = [{"best": True, "val_accuracy": 1.0}]
        self.assertTrue(interrupted.has_learned(run))

    def test_threads_have_a_variable(self):
        found = interrupted.differences({"settings": {"threads": 8, "lr": 1}},
                                        {"settings": {"threads": 2, "lr": 1}})
        self.assertEqual(found, ["threads 8, now 2 (OMP_NUM_THREADS=8 sets it)"])

    def test_one_lock_a_name(self):
        """Two at once are refused, also by another name; after the first, there is no file left."""
        out = self.folder / "model.pt"
        self.file(b"", "folder/x")
        other = self.folder / "folder/../model.pt"
        with interrupted.only_run([self.folder / "a.pt", out]):
            with self.assertRaises(UsageError), interrupted.only_run([other]):
                pass
            with interrupted.only_run([self.folder / "b.pt"]):
                self.assertIn(".b.pt.lock", self.names())
        with interrupted.only_run([other]):
            pass
        self.assertEqual(self.names(), ["folder"])

    def test_a_state_that_is_none(self):
        """Named once, whatever it is."""
        state = self.folder / "model.pt.resume"
        self.interrupt(1)
        good = torch.load(state, weights_only=True)
        three_steps = copy.deepcopy(good["optimiser"])
        three_steps["state"][0]["step"] = torch.ones(3)
        for change in ({"run": 3}, {"history": []}, {"history": [{"best": True}]},
                       {"best": {}}, {"weights": None}, {"random": {}}, {"optimiser": {}},
                       {"optimiser": three_steps},
                       {"history": [{**good["history"][0], "best": torch.ones(3)}]},
                       {"stopping": {"best": None}}, {"seconds": 1}):
            torch.save({**good, **change}, state)
            message = self.fails(lambda: self.train("--resume"), "model.pt.resume: expected",
                                 "train anew without --resume")
            self.assertEqual(message.count("model.pt.resume"), 1, message)
