"""The two errors that a user sees as one line, the file's name before a message, and how to tell
that memory was not enough."""
from contextlib import contextmanager

import torch


class FormatError(ValueError):
    """A file is not what it claims to be: which file, what was expected, what was found."""


class UsageError(ValueError):
    """A setting cannot work: which one, why, and what to give instead."""


@contextmanager
def in_file(path, advice: str = ""):
    """Put the file's name before a FormatError that comes from inside, and what to do behind it."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{path}: {error}{advice}") from None


def shape_text(shape) -> str:
    """(28, 28) as "28 × 28", and a hostile header's 255 sizes cut short."""
    text = " × ".join(str(size) for size in shape) or "()"
    if len(text) >= 60:
        return f"{text[:56]} ..."
    return text


def require(fits: bool, name: str, expected: str, found) -> None:
    """Raise UsageError if a setting is out of its range."""
    if not fits:
        raise UsageError(f"{name} must be {expected}, not {found}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory, or a GPU's, was not enough: torch has no type for a
    CPU's."""
    return (isinstance(error, (MemoryError, torch.OutOfMemoryError))
            or "allocate memory" in str(error))
