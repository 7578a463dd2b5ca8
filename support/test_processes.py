"""Tests of support/processes.py: real processes, which talk to each other over the loopback."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path

import model
import train
from support import processes
from support.errors import UsageError
from support.test_tools import HERE, ToyTestCase, call

import torch
import torch.distributed as dist

# In the first process of two: the gradients of a step of training, for batches of several sizes,
# into a file; and what each process has drawn and written.
STEPS = """
import sys
import idx_data, train
from support.processes import average_buffers, by_the_first, own_random_numbers, rank, together
import torch

def main(arguments):
    data, out = arguments
    results = {}
    digits = idx_data.load_digits(data)
    for size in (32, 33, 1):
        run = train.start(train.RECIPES["baseline"], digits, 1, "cpu", "float32")
        figures = torch.stack(train.train_step(run, torch.arange(size)))
        results[size] = [train.averaged(figures), [p.grad for p in run.net.parameters()]]
    with own_random_numbers(run.generator):
        own = torch.rand(1, generator=run.generator), torch.rand(1)
    results["own"] = [train.averaged(number) * 2 - number for number in own], own
    alike = torch.rand(1, generator=run.generator)
    results["alike"] = train.averaged(alike), alike
    results["first"] = by_the_first(rank)()
    norm = torch.nn.BatchNorm1d(2)
    norm(torch.full((4, 2), 8.0 * rank()) + torch.arange(4.0)[:, None])
    average_buffers(norm)
    results["mean"] = norm.running_mean
    if rank() == 0:
        torch.save(results, out)
    return 0

sys.exit(together(main)(sys.argv[1:]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}


@unittest.skipUnless(sys.platform == "linux" and dist.is_available(), "needs /proc and gloo")
class TestProcesses(ToyTestCase):
    def start(self, *command, **environment):
        return subprocess.Popen([sys.executable, *map(str, command)], cwd=self.folder, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**ENVIRONMENT, **environment})

    def two(self, *command):
        """(status, output, errors) of each of two processes, as torchrun would start them."""
        port = str(free_port())
        both = [self.start(*command, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2",
                           LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
                           TORCHELASTIC_RUN_ID="test") for rank in ("0", "1")]
        return [(process.wait(300), *process.communicate()) for process in both]

    def torchrun(self, *arguments, **options):
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return self.start("-m", "torch.distributed.run", *flags, HERE / "train.py", "--data",
                          self.data, "--device", "cpu", *arguments)

    def test_a_step_of_two_processes_is_that_of_one(self):
        """A network without batch normalisation and dropout; 33 images are not shared equally, and
        of one image the second process has none."""
        out = self.folder / "steps.pt"
        for status, _, errors in self.two("-c", STEPS, self.data, out):
            self.assertEqual(status, 0, errors)
        results = torch.load(out)
        for size in (32, 33, 1):
            alone = train.start(train.RECIPES["baseline"], self.digits, 1, "cpu", "float32")
            expected = torch.stack(train.train_step(alone, torch.arange(size)))
            figures, gradients = results[size]
            torch.testing.assert_close(figures, expected)
            for found, weights in zip(gradients, alone.net.parameters(), strict=True):
                scale = weights.grad.abs().max().item()
                torch.testing.assert_close(found, weights.grad, rtol=0, atol=1e-5 * scale)
        for other, own in zip(*results["own"]):
            self.assertNotEqual(other.item(), own.item())
        self.assertEqual(*results["alike"])
        self.assertEqual(results["first"], 0)
        # Torch takes a tenth of the batch's mean: of 1.5 in one process, 9.5 in the other.
        torch.testing.assert_close(results["mean"], torch.full((2,), 0.55))

    def test_an_error_is_said_once(self):
        wrong = self.torchrun("--recipe", "lenett", nproc_per_node=2, master_port=free_port())
        output, errors = wrong.communicate(timeout=300)
        self.assertEqual((wrong.returncode, output), (1, ""))
        self.assertEqual(errors.count("error: --recipe 'lenett' does not exist; did you mean "
                                      "lenet?\n"), 1, errors)

    def test_a_worker_is_killed_and_the_run_goes_on(self):
        """Two machines with a process each train as one machine with two; so do two processes of
        which one is killed, after --resume."""
        arguments = ["--recipe", "dropout", "--epochs", 6, "--batch-size", 50]
        port = free_port()
        nodes = [self.torchrun(*arguments, "--out", "nodes.pt", nnodes=2, node_rank=number,
                               nproc_per_node=1, master_addr="127.0.0.1", master_port=port)
                 for number in (0, 1)]
        outputs = [process.communicate(timeout=300) for process in nodes]
        self.assertEqual([process.returncode for process in nodes], [0, 0], outputs)
        self.assertIn("2 processes with 1 threads each", outputs[0][0])
        self.assertEqual(outputs[1][0], "")

        options = {"nproc_per_node": 2, "master_port": free_port()}
        killed = self.torchrun(*arguments, **options)
        state = self.folder / "model.pt.resume"
        while not state.exists():
            self.assertIsNone(killed.poll())
            time.sleep(0.01)
        os.kill(self.worker(killed.pid, rank=1), signal.SIGKILL)
        _, errors = killed.communicate(timeout=300)
        self.assertEqual(killed.returncode, 1)
        self.assertEqual(errors.count("the best model so far is in model.pt; go on"), 1, errors)
        self.assertNotIn("Error: ", errors.replace("ChildFailedError: ", ""))
        self.assertLess(len(model.load(self.folder / "model.pt").history), 6)
        with self.assertRaisesRegex(UsageError, "processes 2, now 1"):
            call(train, "--data", self.data, *arguments, "--resume", cwd=self.folder)

        again = self.torchrun(*arguments, "--resume", "--json", **options)
        output, errors = again.communicate(timeout=300)
        self.assertEqual((again.returncode, json.loads(output)["epochs"]), (0, 6), errors)
        ours, theirs = (model.load(self.folder / name) for name in ("model.pt", "nodes.pt"))
        self.assertEqual(ours.history, theirs.history)
        for name, tensor in theirs.state_dict().items():
            self.assertTrue(torch.equal(tensor, ours.state_dict()[name]), name)
        self.assertEqual(ours.run["settings"]["processes"], 2)
        self.assertTrue(ours.run["command"].startswith("torchrun --nproc-per-node 2 train.py "))
        self.assertTrue(theirs.run["command"].startswith(
            "torchrun --nnodes 2 --nproc-per-node 1 train.py "))
        self.assertFalse(state.exists())

    def worker(self, agent: int, rank: int) -> int:
        """The number of the system for one of the processes that torchrun has started."""
        for line in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(line.read_text().rpartition(")")[2].split()[1])
                environment = (line.parent / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            if parent == agent and f"RANK={rank}".encode() in environment:
                return int(line.parent.name)
        self.fail("no such process")


class TestAlone(unittest.TestCase):
    def test_without_torchrun_everything_is_as_given(self):
        batch, net = torch.arange(5), torch.nn.Linear(2, 2)
        self.assertEqual((processes.count(), processes.rank()), (1, 0))
        self.assertIs(processes.share(batch)[0], batch)
        self.assertEqual(processes.share(batch)[1], 1)
        self.assertIs(processes.averaging(net), net)
        self.assertIs(processes.averaged(batch), batch)
        with self.subTest("random numbers go on"):
            a, b = (torch.Generator().manual_seed(3) for _ in range(2))
            with processes.own_random_numbers(a):
                self.assertEqual(torch.rand(1, generator=a), torch.rand(1, generator=b))


if __name__ == "__main__":
    unittest.main()
