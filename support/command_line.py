"""What the scripts share at the command line: the parser, the progress bar, errors in one line."""
import argparse
import difflib
import errno
import math
import os
import signal
import sys
import time
from contextlib import suppress

from support.errors import FormatError, UsageError, is_out_of_memory, require


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
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
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


def shortened(name: str, most: int = 20) -> str:
    """A name in `most` characters: of a longer one the beginning and the end."""
    if len(name) <= most:
        return name
    return f"{name[: most - 7]}…{name[-6:]}"


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

    def parse_args(self, arguments: list[str]):
        """As argparse; but an option with nothing behind it is an error: it was a variable of a
        shell, most often, that is not set."""
        options = super().parse_args(arguments)
        for action in self._actions:
            value = getattr(options, action.dest, None)
            if value == "" or isinstance(value, list) and "" in value:
                flags = "/".join(action.option_strings)
                self.error(f"{flags or action.metavar or action.dest} is empty")
        return options

    def error(self, message: str):
        raise UsageError(f"{message} (see {self.prog} --help)")


DATA = "data"  # the default folder of the data set


def add_data_arguments(parser: Parser) -> None:
    parser.add_argument("--data", default=DATA, metavar="DIR", help="folder of the data set")
    parser.add_argument("--download", action="store_true", help="download MNIST into DIR, if that "
                        "is empty or new; into the default folder it comes without being told")
    parser.add_argument("--mirror", metavar="URL", help="download MNIST from here first, "
                        "an address or a folder (also: the environment variable MNIST_MIRROR)")


def may_download(options) -> bool:
    """Whether MNIST may be downloaded. Not into another folder than the default one, unless that is
    said: its name may be misspelt."""
    return options.download or is_default_data(options.data)


def is_default_data(folder) -> bool:
    return os.path.abspath(folder) == os.path.abspath(DATA)


def add_training_arguments(parser: Parser, schedules) -> None:
    """What train.py trains by: a recipe, its settings (those not given are not there), what the
    pictures are, the machine, the seeds, the files."""
    parser.add_argument("--recipe", metavar="NAME", help="recipe to train by, see --list "
                        "(default: small; with --from, one for a few images more)")
    parser.add_argument("--from", dest="base", metavar="CHECKPOINT",
                        help="begin with the weights of this trained network")
    parser.add_argument("--list", action="store_true", help="print the recipes and stop")
    for flag, kind, what in (
            ("--epochs", int, "passes over the training images"),
            ("--batch-size", int, "images in a training step"),
            ("--lr", float, "learning rate: the highest one of the schedule"),
            ("--schedule", str, f"of the learning rate: {', '.join(schedules)}"),
            ("--step-size", int, "for --schedule step: epochs between two steps"),
            ("--gamma", float, "for --schedule step: the learning rate is multiplied by it"),
            ("--patience", int, "epochs without a better one before it stops early, 0: never"),
            ("--val-fraction", float, "of the training images, held out to choose the epoch")):
        parser.add_argument(flag, type=kind, metavar="X" if kind is float else "N",
                            default=argparse.SUPPRESS, help=f"{what} (default: the recipe's)")
    parser.add_argument("--content", default="auto", help="what the pictures are, for infer.py: "
                        "digits (to be found), plain (read as they are), or auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--no-graph", action="store_true",
                        help="on CUDA, do not record a training step to replay it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many, from --seed")
    parser.add_argument("--out", default="model.pt", metavar="FILE",
                        help="checkpoint to write; with --seeds, the seed is added to its name")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each seed")


def add_evaluation_arguments(parser: Parser, splits, pictures) -> None:
    """Which models evaluate.py measures, on which images, and what it writes."""
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT",
                        help="models to evaluate; of several, also the mean of their probabilities "
                        "(default: model.pt here, else the project's pretrained.pt)")
    add_data_arguments(parser)
    parser.add_argument("--split", default="test", help=f"images to evaluate: {', '.join(splits)}")
    parser.add_argument("--model", metavar="NAME", help="network of a bare state_dict")
    parser.add_argument("--tta", action="store_true",
                        help="average over shifts of up to a pixel, nine times the work")
    parser.add_argument("--report", metavar="DIR", help="folder of the report "
                        "(default: report; with --json, none is written)")
    parser.add_argument("--pictures", metavar="NAMES", help="write these pictures alone, "
                        "without the page; separated by commas, some of " + ", ".join(pictures))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON object to stdout")


def add_reading_arguments(parser: Parser, networks) -> None:
    """What infer.py reads, with which model, what it prints and writes; the page to draw on."""
    parser.add_argument("images", nargs="*", metavar="IMAGE",
                        help="pictures, folders of pictures, IDX files, or - for standard input")
    parser.add_argument("--checkpoint", metavar="FILE",
                        help="the model (default: model.pt if it is here, else pretrained.pt)")
    parser.add_argument("--model", metavar="NAME", help="the network, for a checkpoint that is a "
                        "bare state_dict: " + ", ".join(networks))
    parser.add_argument("--index", metavar="I,J,...",
                        help="which images of an IDX file, counted from 0 (default: all)")
    parser.add_argument("--single", action="store_true",
                        help="there is one digit in each picture: read the best one")
    parser.add_argument("--top", type=int, default=3, metavar="N",
                        help="how many of the best digits to print")
    parser.add_argument("--show", action="store_true",
                        help="draw what the network sees, and a bar for each digit")
    parser.add_argument("--save-seen", metavar="OUT.png",
                        help="write the digits as the network sees them, in rows of ten")
    parser.add_argument("--save-steps", metavar="OUT.png",
                        help="write the candidates of the first picture, and which were chosen")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps or auto")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON object for each image to standard output")
    parser.add_argument("--draw", action="store_true",
                        help="serve a page to draw on, and open it in the browser")
    parser.add_argument("--no-browser", action="store_true", help="with --draw: print its address "
                        "only")
    parser.add_argument("--port", type=int, default=0, metavar="N",
                        help="with --draw: port of the page, 0 for any that is free")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="with --draw: address of the page; 0.0.0.0 is open to the network")


def check_run(options) -> None:
    """Raise UsageError if there is no such seed."""
    require(0 <= options.seed < 2**63, "--seed", "from 0 to 2^63 - 1", options.seed)
    most = min(10_000, 2**63 - options.seed)
    require(1 <= options.seeds <= most, "--seeds", f"from 1 to {most}", options.seeds)


MANY = 10**9  # of anything that is counted


def check_settings(recipe, schedules) -> None:
    """Raise UsageError if a setting of a train.Recipe is out of its range."""
    choose(recipe.schedule, schedules, "--schedule")
    for flag, value in (("--epochs", recipe.epochs), ("--batch-size", recipe.batch_size),
                        ("--step-size", recipe.step_size)):
        require(1 <= value <= MANY, flag, f"from 1 to {MANY}", value)
    require(0 <= recipe.patience <= MANY, "--patience", f"from 0 to {MANY}", recipe.patience)
    require(0 < recipe.lr < math.inf, "--lr", "more than 0", recipe.lr)
    require(0 < recipe.gamma <= 1, "--gamma", "more than 0 and at most 1", recipe.gamma)
    require(0 < recipe.val_fraction < 1, "--val-fraction", "between 0 and 1, both excluded",
            recipe.val_fraction)


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
            say(f"\r{line}\r", sys.stderr, end="")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._draw("")
