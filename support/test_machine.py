"""Machines with one core, or too little memory."""
import os
import unittest
from unittest import mock

from support import machine
from support.test_tools import TestCase, run, write_toy

import torch


class TestMemoryLeft(TestCase):
    def test_the_least_of_all_limits_shared_by_the_processes_of_torchrun(self):
        """A group within a group, in both versions of control groups."""
        for groups, files in (
                ("0::/a/b\n", {"/sys/fs/cgroup/memory.max": "max\n",
                               "/sys/fs/cgroup/a/memory.max": "40000\n"}),
                ("9:cpu:/\n3:rdma,memory:/a\n", {
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                    "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "40000\n"})):
            files |= {"/proc/self/cgroup": groups,
                      "/proc/meminfo": "MemTotal: 900 kB\nMemAvailable: 100 kB\n"}
            with mock.patch.object(machine, "said_by_linux", lambda path: files.get(path, "")):
                self.assertEqual(machine.memory_left(), 40000)
                with mock.patch.dict(os.environ, LOCAL_WORLD_SIZE="4"):
                    self.assertEqual(machine.memory_left(), 10000)
                del files["/proc/self/cgroup"]
                self.assertEqual(machine.memory_left(), 102400)


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
