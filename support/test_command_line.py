"""The command line in real processes: streams that are closed, go away, or cannot print a sign."""
import contextlib
import errno
import io
import os
import subprocess
import sys
import unittest

import model
from support import command_line
from support.test_tools import HERE, TestCase, run, write_toy

# Imports each module in the order given; says which of them changed what in the process.
WATCH = """
import os, signal, sys
import support, torch

def state():
    umask = os.umask(0o22)
    os.umask(umask)
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return {"environment": dict(os.environ), "umask": umask, "signals": handlers,
            "hooks": [sys.excepthook, sys.unraisablehook, sys.displayhook],
            "streams": [sys.stdout, sys.stderr, sys.stdout.errors, sys.stderr.errors],
            "threads": torch.get_num_threads()}

before = state()
for name in sys.argv[1:]:
    __import__(name)
    after = state()
    for key in before:
        if before[key] != after[key]:
            print(name, "changes", key, before[key], after[key])
    before = after
"""


class TestImports(TestCase):
    def names(self):
        rooms = [f"support.{path.stem}" for path in sorted((HERE / "support").glob("*.py"))
                 if path.stem != "__init__"]
        scripts = [path.stem for path in sorted(HERE.glob("*.py"))]
        self.assertGreater(len(rooms + scripts), 12)
        return rooms + scripts

    def python(self, program: str, *arguments: str):
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        environment.pop("GOMP_SPINCOUNT", None)
        return subprocess.run([sys.executable, "-c", program, *arguments], env=environment,
                              capture_output=True, text=True)

    def test_importing_changes_nothing(self):
        done = self.python(WATCH, *self.names())
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("", "", 0))

    def test_the_one_variable(self):
        """It is set before torch is loaded."""
        done = self.python("import os, sys; before = dict(os.environ); import support; "
                           "print('torch' in sys.modules, set(os.environ.items()) ^ "
                           "set(before.items()))")
        self.assertEqual(done.stdout, "False {('GOMP_SPINCOUNT', '10000')}\n", done.stderr)

    def test_support_stands_alone(self):
        """Arrows point one way: a room loads without the scripts."""
        rooms = [name for name in self.names()
                 if name.startswith("support.") and not name.startswith("support.test_")
                 and not name.startswith("support.benchmark")]
        scripts = {name for name in self.names() if not name.startswith("support.")}
        done = self.python(f"import sys, {', '.join(rooms)}; "
                           f"print({scripts} & set(sys.modules))")
        self.assertEqual(done.stdout, "set()\n", done.stderr)


class TestSay(unittest.TestCase):
    def test_a_program_may_catch_it(self):
        """Whatever it puts in the place of standard output, even if that is empty, thus false."""
        class Lines(list):
            def write(self, text):
                self.append(text)

            def flush(self):
                pass

        lines, others = Lines(), Lines()
        with contextlib.redirect_stdout(lines):
            model.main(["tiny2k"])
            command_line.say("to others", others)
        self.assertIn("1,980", lines[0])
        self.assertEqual((lines[1:], others), (["\n"], ["to others", "\n"]))

    def test_a_stream_of_a_program_s_own_that_is_full(self):
        class Full(io.StringIO):
            def write(self, text):
                raise OSError(errno.ENOSPC, "full")

        with self.assertRaises(OSError) as caught:
            command_line.say("x", Full())
        self.assertEqual(caught.exception.errno, errno.ENOSPC)


class TestStreams(TestCase):
    def setUp(self):
        super().setUp()
        self.data = write_toy(self.folder / "data", 200, 50)

    def test_reader_that_goes_away(self):
        for command in ("train.py --data data --recipe lenet --batch-size 8 --lr 0.005 --epochs 3 "
                        "--out new.pt", "idx_data.py --data data"):
            script, *arguments = command.split()
            process = subprocess.Popen([sys.executable, str(HERE / script), *arguments],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       cwd=self.folder)
            process.stdout.readline()
            process.stdout.close()
            error = process.stderr.read().decode()
            process.stderr.close()
            self.assertEqual((process.wait(), error), (0, ""), command)
        self.assertEqual(len(model.load(self.folder / "new.pt").history), 3)

    def test_no_standard_streams(self):
        for closed in (">&-", ">/dev/null 2>&-", ">&- 2>&-"):
            done = subprocess.run(f"'{sys.executable}' '{HERE}/model.py' small {closed}",
                                  shell=True)
            self.assertEqual(done.returncode, 0, closed)

    def test_encodings_and_optimised_python(self):
        for env in ({"PYTHONIOENCODING": "cp1252", "NO_COLOR": "1"},
                    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
                     "TERM": "dumb", "PYTHONOPTIMIZE": "1"}):
            done = run("train.py", "--data", self.data, "--recipe", "lenet", "--batch-size", 8,
                       "--lr", 0.005, "--epochs", 1, cwd=self.folder, check=0, env=env)
            self.assertIn("test accuracy", done.stdout)
            self.assertNotIn("\x1b", done.stdout + done.stderr)
            self.assertNotIn("\r", done.stderr)  # no progress bar where there is no terminal


BAR = """
from support.command_line import Progress, run_script
from support.errors import FormatError

def main(arguments):
    with Progress(1000, "reading") as bar:
        bar.show(500, " so far")
        raise FormatError("picture.png: expected this, found that\\x1b[2J")

run_script(main)
"""


@unittest.skipIf(os.name == "nt", "needs a pseudo-terminal")
class TestProgress(TestCase):
    def test_on_a_terminal(self):
        """The bar is drawn, and wiped out before the error's line."""
        ours, its = os.openpty()
        process = subprocess.Popen([sys.executable, "-c", BAR], stderr=its, cwd=HERE)
        os.close(its)
        text = b""
        try:
            while piece := os.read(ours, 4096):
                text += piece
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(ours)
        self.assertEqual(process.wait(), 2)
        parts = text.decode().split("\r")
        self.assertEqual(parts[1].rstrip(), "reading [##########..........] 500 so far")
        self.assertTrue(all(len(part) < 60 for part in parts[:-1]), parts)
        self.assertEqual(parts[3].strip(), "")
        self.assertEqual(parts[4], "error: picture.png: expected this, found that?[2J")
