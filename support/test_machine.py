"""Machines with one core, or too little memory."""
import os
import unittest

from support.test_tools import TestCase, run, write_toy

import torch


class TestSmallMachine(TestCase):
    @unittest.skipUnless(hasattr(os, "sched_setaffinity"), "needs processor affinity")
    def test_one_core(self):
        core = min(os.sched_getaffinity(0))
        done = run("train.py", "--data", write_toy(self.folder / "data", 1000, 50), "--recipe",
                   "lenet", "--epochs", 1, cwd=self.folder, check=0, env={"OMP_NUM_THREADS": None},
                   preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        self.assertIn(" 1 threads,", done.stdout)

    @unittest.skipIf(os.name == "nt" or torch.version.cuda, "needs memory limits, and a torch "
                     "whose libraries alone are not beyond them")
    def test_out_of_memory(self):
        import resource

        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        done = run("train.py", "--data", write_toy(self.folder / "data", 30000, 50), "--recipe",
                   "wide", "--batch-size", 20000, "--epochs", 1, cwd=self.folder, preexec_fn=limit)
        self.error_line(done, "out of memory", "--batch-size 10000")
