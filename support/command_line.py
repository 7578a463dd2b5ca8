"""What the scripts share at the command line: the parser, the progress bar, errors in one line."""
import argparse
import difflib
import errno
import os
import signal
import sys
import time
from contextlib import suppress

import torch

from support.errors import FormatError, UsageError


# --- Running a script -----------------------------------------------------------------------------

ADVICE = {errno.ENOSPC: "; free some space and run it again", errno.ENOENT: "; check the name",
          errno.EISDIR: "; expected a file", errno.ENOTDIR: "; expected a folder",
          errno.EACCES: "; check its permissions, or name another",
          errno.EROFS: "; choose another place"}


def run_script(main) -> None:
    """Run a script's main(arguments) -> exit status, and answer what goes wrong in one line: a
    wrong file or setting 2, an interruption 130. A reader that goes away (`| head`) is no error."""
    try:
        heed_signals()
        open_streams()
        status = main(sys.argv[1:])
    except (FormatError, UsageError) as error:
        status = fail(str(error))
    except OSError as error:
        if error.strerror and error.filename:
            status = fail(f"{error.filename}: {error.strerror}{ADVICE.get(error.errno, '')}")
        else:
            status = fail(str(error))
    except (MemoryError, torch.OutOfMemoryError):
        status = fail("out of memory; close other programs, or use fewer or smaller files")
    except KeyboardInterrupt as interruption:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not break the first
        say("; ".join(["interrupted", *interruption.args]), sys.stderr)
        status = 130
    sys.exit(status)


def heed_signals() -> None:
    """A polite kill, and a terminal that is closed, are as Ctrl-C; but `nohup` still protects."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def open_streams() -> None:
    """Have both streams, even if the shell closed them (>&-), and let them print "?" for what their
    encoding lacks: cp1252 has no blocks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        getattr(sys, name).reconfigure(errors="replace")


def fail(message: str) -> int:
    """Print an error; the exit status that goes with it."""
    say(f"error: {printable(message, keep=chr(10))}", sys.stderr)
    return 2


def say(text: str = "", file=None, end: str = "\n") -> None:
    """print, but a reader that has gone away (`| head`, a closed terminal) ends the output, not the
    work."""
    stream = sys.stdout if file is None else file
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError as error:
        with suppress(OSError):  # a stream of a program's own has no number
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if error.errno not in (errno.EPIPE, errno.EIO):
            error.filename = getattr(stream, "name", None)
            raise


def printable(text, keep: str = "") -> str:
    """Text without control characters: those in a name must not steer a terminal or forge lines."""
    return "".join(c if c.isprintable() or c in keep else "?" for c in str(text))


# --- Arguments ------------------------------------------------------------------------------------

class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default, but not that a switch is off."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse, with defaults in --help, and a wrong argument answered in one line."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False,
                         formatter_class=lambda prog: Defaults(prog, max_help_position=28))

    def error(self, message: str):
        raise UsageError(f"{message} (see {self.prog} --help)")


def add_data_arguments(parser: Parser) -> None:
    parser.add_argument("--data", default="data", metavar="DIR", help="folder of the data set")
    parser.add_argument("--mirror", metavar="URL", help="download MNIST from here first, "
                        "an address or a folder (also: the environment variable MNIST_MIRROR)")


def choose(name: str, names, what: str) -> str:
    """`name`, if it is one of `names`. Raises UsageError with the nearest names if it is not."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 3, 0.5)
    if near:
        advice = f"did you mean {' or '.join(near)}?"
    else:
        advice = f"there are {', '.join(names)}"
    raise UsageError(f"{what} {name!r} does not exist; {advice}")


# --- Progress -------------------------------------------------------------------------------------

class Progress:
    """A bar on stderr; nothing where that is no terminal. Used by `with`, it is gone before the
    next line is printed, an error's too."""

    BAR, WIDTH = 20, 59  # characters; terminals have 60 columns at least

    def __init__(self, total: int, label: str):
        self.total, self.label = total, label
        self.is_terminal = sys.stderr.isatty()
        self.last_due = time.monotonic()

    def due(self) -> bool:
        """Whether a tenth of a second has passed since it last was: time to show something new."""
        now = time.monotonic()
        if now - self.last_due < 0.1:
            return False
        self.last_due = now
        return True

    def show(self, done: int, note: str = "") -> None:
        full = min(self.BAR, self.BAR * done // max(1, self.total))
        bar = "#" * full + "." * (self.BAR - full)
        self._draw(f"{self.label} [{bar}] {done:,}{note}")

    def _draw(self, text: str) -> None:
        if self.is_terminal:
            line = text[:self.WIDTH].ljust(self.WIDTH)  # spaces wipe out what was there before
            print(f"\r{line}\r", end="", file=sys.stderr, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._draw("")


TABLE_HEAD = "epoch       lr  train loss  accuracy  val loss  accuracy      s  images/s"


def epoch_row(row: dict, seconds: float, count: int) -> str:
    """A row of the table that a run prints."""
    text = (f"{row['epoch']:>5}{row['lr']:>9.2g}{row['train_loss']:>12.4f}"
            f"{row['train_accuracy']:>10.2%}{row['val_loss']:>10.4f}{row['val_accuracy']:>10.2%}"
            f"{seconds:>7.1f}{count / max(seconds, 1e-9):>10,.0f}")
    if row["best"]:
        text += " *"
    return text
