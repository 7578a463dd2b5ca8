"""Files on real disks: full, read-only, slow to end."""
import contextlib
import gzip
import os
import shutil
import subprocess
import sys
import unittest

import idx_data
import model
from support import files
from support.errors import UsageError
from support.test_tools import HERE, TestCase, run, toy_images, write_toy

import numpy as np
import torch


class TestWriteWhole(TestCase):
    def write(self, name: str, data: bytes = b"new"):
        files.write_whole(self.folder / name, lambda file: file.write(data))

    def test_a_failed_write_leaves_the_old_file(self):
        path = self.file(b"old")

        def write(file):
            file.write(b"new")
            raise OSError(28, "No space left on device")
        with self.assertRaises(OSError) as caught:
            files.write_whole(path, write)
        self.assertEqual((caught.exception.filename, path.read_bytes()), (str(path), b"old"))
        self.assertEqual(list(self.folder.iterdir()), [path])

    def test_what_is_in_the_way(self):
        self.file(b"a file, no folder", "file")
        self.fails(lambda: self.write("file/name"), "file: expected a folder, found a file",
                   kind=UsageError)
        self.fails(lambda: self.write("."), "folder", kind=UsageError)
        self.fails(lambda: files.write_whole("/dev/null", None), "device", kind=UsageError)

    @unittest.skipIf(os.name == "nt", "links need a privilege there")
    def test_a_link_stays(self):
        path = self.file(b"old", "there/file")
        (self.folder / "link").symlink_to(path)
        self.write("link")
        self.assertTrue((self.folder / "link").is_symlink())
        self.assertEqual(path.read_bytes(), b"new")

    @unittest.skipIf(os.name == "nt", "Windows has other permissions")
    def test_the_umask_decides_who_may_read(self):
        self.file(b"old", "replaced")
        self.addCleanup(os.umask, os.umask(0o027))
        for name in ("created", "replaced"):
            self.write(name)
            self.assertEqual((self.folder / name).stat().st_mode & 0o777, 0o640, name)


class TestReading(TestCase):
    def test_files_that_never_end(self):
        if os.path.exists("/dev/zero"):
            self.fails(lambda: idx_data.read_idx("/dev/zero"), "/dev/zero")
            self.fails(lambda: model.load("/dev/zero"), "device")
            self.fails(lambda: files.read_file("/dev/zero"), "device")
        if hasattr(os, "mkfifo"):  # opening it would wait for somebody to write
            os.mkfifo(self.folder / "pipe")
            self.fails(lambda: idx_data.read_idx(self.folder / "pipe"), "pipe")

    def test_a_file_that_is_too_large(self):
        path = self.file(b"")
        with contextlib.suppress(OSError):  # a sparse file: it takes no place
            os.truncate(path, 2 << 30)
            self.fails(lambda: files.read_file(path), path, "1 GB", "2,147,483,648")


def limit_file_size(count):
    """For preexec_fn: files of the process stay under `count` bytes."""
    import resource
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))


class TestFindFiles(TestCase):
    def test_every_layout(self):
        toy = write_toy(self.folder / "toy", 40, 20)
        expected = idx_data.load_digits(toy)
        self.assertEqual((expected.train_images.shape, expected.train_images.dtype),
                         ((40, 28, 28), torch.uint8))
        self.assertEqual((expected.test_labels.shape, expected.test_labels.dtype),
                         ((20,), torch.int64))
        np.testing.assert_array_equal(expected.train_images.numpy(),
                                      toy_images(np.arange(40) % 10, 40))
        layouts = {"gz": "{}.gz", "raw": "MNIST/raw/{}", "raw gz": "MNIST/raw/{}.gz",
                   "parts": "{part}/{}",
                   "parts gz": "{part}/{}.gz", "dots": "{dots}", "parts dots": "{part}/{dots}.gz"}
        for layout, pattern in layouts.items():
            root = self.folder / layout
            for path in toy.iterdir():
                part = "train" if path.name.startswith("train") else "test"
                name = pattern.format(path.name, part=part, dots=path.name.replace("-idx", ".idx"))
                data = path.read_bytes()
                self.file(gzip.compress(data) if name.endswith("gz") else data, f"{layout}/{name}")
            digits = idx_data.load_digits(root, download=False)
            self.assertEqual(digits.hashes(), expected.hashes(), layout)
        # A stray file does not hide the complete set in a layout that is looked at later.
        shutil.copy(toy / "t10k-labels-idx1-ubyte", self.folder / "raw")
        self.assertEqual(idx_data.load_digits(self.folder / "raw").hashes(), expected.hashes())


class TestDisks(TestCase):
    def setUp(self):
        super().setUp()
        self.data = write_toy(self.folder / "a folder, ü", 200, 50)

    def train(self, *arguments, **more):
        return run("train.py", "--data", self.data, "--recipe", "lenet", "--batch-size", 8,
                   "--lr", 0.005, "--epochs", 1, *arguments, cwd=self.folder, **more)

    @unittest.skipIf(os.name == "nt", "needs file-size limits")
    def test_full_disk(self):
        done = self.train(preexec_fn=limit_file_size(50_000))
        self.error_line(done, "model.pt", "File too large")
        self.assertEqual([p.name for p in self.folder.iterdir()], [self.data.name])
        self.train(check=0)
        before = (self.folder / "model.pt").read_bytes()
        done = self.train("--seed", 1, preexec_fn=limit_file_size(50_000))
        self.error_line(done, "model.pt")
        self.assertEqual((self.folder / "model.pt").read_bytes(), before)

    @unittest.skipIf(os.name == "nt", "Windows has other permissions")
    def test_a_file_that_may_not_be_read(self):
        """Another place to write to would not help."""
        path = self.file(b"", "secret.pt")
        path.chmod(0)
        self.folder.chmod(0o755)
        code = ("import os, evaluate; from support.command_line import run_script\n"
                "if os.geteuid() == 0: os.seteuid(65534)  # root may read everything\n"
                "run_script(evaluate.main)")
        done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=HERE, text=True,
                              capture_output=True)
        self.error_line(done, f"{path}: Permission denied; check its permissions, or name another")

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_full_output(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, str(HERE / "model.py")], stdout=full,
                                  stderr=subprocess.PIPE, text=True)
        self.error_line(done, "No space left")

    def mounted(self, options, command, **more):
        """Run a shell command with a small file system of its own at self.folder/disk."""
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        script = f"mount -t tmpfs -o {options} none '{disk}' && touch mounted && {command}"
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True,
                              cwd=self.folder, **more)
        if not (self.folder / "mounted").exists():
            self.skipTest("mounting is not allowed here")
        (self.folder / "mounted").unlink()
        return done

    @unittest.skipUnless(shutil.which("unshare"), "needs unshare")
    def test_small_and_read_only_disks(self):
        command = (f"'{sys.executable}' '{HERE}/train.py' --data '{self.data}' --recipe lenet "
                   "--epochs 1 --out disk/m.pt")
        self.error_line(self.mounted("size=64k", command), "m.pt", "No space left",
                        "free some space")
        done = self.mounted("ro", command)
        self.error_line(done, "m.pt", "cannot be written to")
        self.assertNotIn("accuracy", done.stdout)  # found out before the training, not after it
        done = self.mounted("ro", f"PIP_NO_INDEX=1 '{sys.executable}' '{HERE}/idx_data.py' "
                            "--data disk/data --download")
        self.error_line(done, "disk/data", "Read-only")
