"""Images that are too large for memory: they stay in their file, which the system maps.

A mapped file looks like memory, but a page of it is read when it is first touched, and forgotten
when memory is needed. It is read-only: writing to it would end the program.
"""
import warnings

import numpy as np
import torch


def map_file(file, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The elements that follow in an open file, of single bytes, as an array that cannot be
    written. Raises OSError where the system does not map that much."""
    start = file.tell()
    try:
        return np.memmap(file, dtype, mode="r", offset=start, shape=shape)
    finally:
        file.seek(start)  # numpy leaves it at the end


def is_mapped(array: np.ndarray) -> bool:
    return isinstance(array, np.memmap)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """torch.from_numpy, without its warning that a mapped array must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def picked(images: torch.Tensor, numbers: torch.Tensor, stay: bool):
    """Those of the images (M, H, W) that have these numbers (N,): a copy in memory or, if they are
    to stay in their file, MappedImages."""
    if stay:
        return MappedImages(images, numbers)
    return images[numbers]


class MappedImages:
    """Some of the images of a mapped file, in an order of their own: what a training step needs of
    a tensor (N, H, W) uint8. An index into it gathers a batch, and moves that to the device."""

    def __init__(self, images: torch.Tensor, numbers: torch.Tensor, device="cpu"):
        self.images = images  # (M, H, W) uint8, all that are in the file
        self.numbers = numbers.to(device)  # (N,) int64, of those that count
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index) -> torch.Tensor:
        return self.images[self.numbers[index].cpu()].to(self.device)

    def to(self, device) -> "MappedImages":
        return MappedImages(self.images, self.numbers, device)

    def split(self, size: int):
        """All of them, by pieces of `size`, in the file's order: a disk is read fastest so."""
        for numbers in self.numbers.cpu().sort().values.split(size):
            yield self.images[numbers]
