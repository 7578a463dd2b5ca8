"""What another program hands over: arrays and tensors in the shapes that the scripts work with, or
one line that says what they need."""
import numpy as np

from support import mapped
from support.errors import UsageError, shape_text

import torch


def as_rgba(picture) -> np.ndarray:
    """A picture (H, W), (H, W, 3) or (H, W, 4) of uint8 as (H, W, 4). Raises UsageError for any
    other."""
    picture = np.asarray(picture)
    shape = picture.shape
    channels = shape[2:] in ((), (3,), (4,))
    if picture.dtype != np.uint8 or picture.ndim < 2 or not channels or not picture.size:
        raise UsageError("expected a picture of (H, W), (H, W, 3) or (H, W, 4) uint8 from 0 to "
                         f"255, found {shape_text(shape)} of {picture.dtype}")
    if picture.ndim == 2:
        picture = np.dstack([picture] * 3)
    if picture.shape[2] == 3:
        picture = np.dstack([picture, np.full(shape[:2], 255, np.uint8)])
    return picture


def as_tensor(array) -> torch.Tensor:
    """A tensor as it is; an array of numbers as a tensor."""
    if isinstance(array, torch.Tensor):
        return array
    array = np.asarray(array)
    if array.dtype.kind not in "iuf":
        raise UsageError(f"expected an array of numbers, found one of {array.dtype}")
    # Torch takes neither another byte order, nor a view that is turned round.
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return mapped.as_tensor(array)


def as_tensors(images, labels, size: int, classes: int,
               device) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, size, size) images of 0 to 255, uint8 or float32, and (N,) labels below `classes`,
    tensors or arrays, as tensors on a device. Raises UsageError for any other."""
    images = as_tensor(images)
    labels = as_tensor(labels)
    wanted = images.dtype in (torch.uint8, torch.float32)
    if images.shape[1:] != (size, size) or not len(images) or not wanted:
        raise UsageError(f"expected images of (N, {size}, {size}) uint8, found "
                         f"{shape_text(images.shape)} of {images.dtype}")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise UsageError(f"expected {len(images):,} labels, one whole number for each image, found "
                         f"{shape_text(labels.shape)} of {labels.dtype}")
    labels = labels.to(torch.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UsageError(f"expected labels from 0 to {classes - 1}, found {low} to {high}; the "
                         "network knows no others")
    return images.to(device), labels.to(device)
