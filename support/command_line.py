"""What the scripts share at the command line."""
import argparse
import difflib
import errno
import os
import signal
import sys
import time

import torch

from support.errors import FormatError, UsageError


class Progress:
    """One line on stderr, redrawn ten times a second; nothing where that is no terminal."""

    def __init__(self, total: int, label: str, unit: str, scale: float = 1):
        self.total, self.label, self.unit, self.scale = total, label, unit, scale
        self.started = self.drawn = time.monotonic()
        self.on = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def due(self) -> bool:
        """Whether a tenth of a second has passed since it last was."""
        now = time.monotonic()
        if now - self.drawn < 0.1:
            return False
        self.drawn = now
        return True

    def show(self, done: int, note: str = "") -> None:
        if not self.on:
            return
        rate = done / max(1e-9, time.monotonic() - self.started)
        text = f"{self.label} {done / self.scale:,.0f}"
        width = self.width()
        if self.total:
            text += f"/{self.total / self.scale:,.0f}"
            left = (self.total - done) / max(rate, 1e-9)
            for more in (f"  {left:.0f} s left", f"  {rate / self.scale:,.0f} {self.unit}/s"):
                if len(text) + len(note) + len(more) < width:  # in a narrow terminal, the first
                    note += more
        bar = max(0, min(24, width - len(text) - len(note) - 4))
        if self.total and bar >= 5:
            full = round(bar * done / self.total)
            text += " [" + "#" * full + "." * (bar - full) + "]"
        print(f"\r{(text + ' ' + note)[:width]:{width}}", end="", file=sys.stderr, flush=True)

    @staticmethod
    def width() -> int:
        """The columns of the terminal that stderr is, less one, so that the line never wraps."""
        try:
            return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        except OSError:
            return 79

    def close(self) -> None:
        if self.on:
            print(f"\r{' ' * self.width()}\r", end="", file=sys.stderr, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()  # so that an error's line does not begin behind the bar


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default, but not that a switch is off."""

    def _get_help_string(self, action):
        off = action.default is None or action.default is False
        return action.help if off else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse, with defaults in --help, and a wrong argument answered in one line."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False,
                         formatter_class=lambda prog: Defaults(prog, max_help_position=28))

    def error(self, message: str):
        raise UsageError(f"{message} (see {self.prog} --help)")


def choose(name: str, names, what: str) -> str:
    """`name`, if it is one of `names`. Raises UsageError with the nearest names if it is not."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 3, 0.5)
    raise UsageError(f"{what} {name!r} does not exist; "
                     + (f"did you mean {' or '.join(near)}?" if near
                        else f"there are {', '.join(names)}"))


def plain(words, keep: str = "") -> str:
    """Text without control characters: those in a name must not steer a terminal or forge lines."""
    return "".join(c if c.isprintable() or c in keep else "?" for c in str(words))


ADVICE = {errno.ENOSPC: "; free some space and run it again", errno.ENOENT: "; check the name",
          errno.EISDIR: "; expected a file", errno.ENOTDIR: "; expected a folder",
          errno.EACCES: "; choose another place", errno.EROFS: "; choose another place"}


def run_script(main) -> None:
    """Run a script's main(arguments) -> exit status, and answer what goes wrong in one line: a
    wrong file or setting 2, an interruption 130. A reader that goes away (`| head`) is no error."""
    def stop(*_):
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by the shell: >&-
                setattr(sys, name, open(os.devnull, "w"))
            getattr(sys, name).reconfigure(errors="replace")  # cp1252 has no blocks: "?"
        status = main(sys.argv[1:]) or 0
    except (FormatError, UsageError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.strerror and error.filename:
            text = f"{error.filename}: {error.strerror}{ADVICE.get(error.errno, '')}"
        say(f"error: {plain(text, keep=chr(10))}", sys.stderr)
        status = 2
    except (MemoryError, torch.OutOfMemoryError):
        say("error: out of memory; close other programs, or use fewer or smaller files", sys.stderr)
        status = 2
    except KeyboardInterrupt as stopped:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not break the first
        say("interrupted" + "".join(f"; {word}" for word in stopped.args), sys.stderr)
        status = 130
    sys.exit(status)


def say(text: str = "", file=None, end: str = "\n") -> None:
    """print, but a reader that has gone away (`| head`) ends the output, not the work."""
    file = file or sys.stdout
    try:
        print(text, file=file, end=end, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        if not isinstance(error, BrokenPipeError):
            error.filename = file.name
            raise


def add_data_arguments(parser: Parser) -> None:
    parser.add_argument("--data", default="data", metavar="DIR", help="folder of the data set")
    parser.add_argument("--mirror", metavar="URL", help="download MNIST from here first "
                        "(also: the environment variable MNIST_MIRROR)")
