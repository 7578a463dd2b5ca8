"""Write a data set of any size, to try what is larger than memory: training images repeated.

    python -m support.benchmark_data 5400000 many              MNIST's, 4.2 GB, into the folder many
    python -m support.benchmark_data 5400000 many --data DIR   those of another data set

The repeated images are the same to the byte, so that held-out ones are among those to learn from:
such a data set shows how fast training is, not how good.
"""
from pathlib import Path

import idx_data
from support.command_line import Parser, add_data_arguments, may_download, run_script, say
from support.errors import UsageError, require
from support.files import write_whole

import numpy as np

PIECE = 10_000  # images that are written at once


def write_many(count: int, digits: idx_data.Digits, out: Path) -> None:
    """The training part repeated until it has `count` images, the test part as it is, as four IDX
    files. The images take little memory, the labels 20 bytes each."""
    images, labels = digits.train_images.numpy(), digits.train_labels.numpy().astype(np.int32)

    def write_images(file):
        file.write(idx_data.idx_header(images.dtype, (count, *images.shape[1:])))
        for first in range(0, count, PIECE):
            numbers = np.arange(first, min(first + PIECE, count)) % len(images)
            file.write(images[numbers].tobytes())

    train_images, train_labels, test_images, test_labels = idx_data.FILES
    write_whole(out / train_images, write_images)
    idx_data.write_idx(out / train_labels, labels[np.arange(count) % len(labels)])
    idx_data.write_idx(out / test_images, digits.test_images.numpy())
    idx_data.write_idx(out / test_labels, digits.test_labels.numpy().astype(np.int32))


def main(arguments: list[str]) -> int:
    parser = Parser("Write a data set of any size: training images repeated.")
    parser.add_argument("count", type=int, help="training images to write")
    parser.add_argument("out", metavar="OUT", help="folder for the four files")
    add_data_arguments(parser)
    options = parser.parse_args(arguments)
    require(1 <= options.count < 2**32, "count", "from 1 to 2^32 - 1", options.count)
    out = Path(options.out)
    if any((out / name).exists() for name in idx_data.FILES):
        raise UsageError(f"{out} holds a data set already; name another folder")
    digits = idx_data.load_digits(options.data, may_download(options), options.mirror)
    write_many(options.count, digits, out)
    say(f"wrote {options.count:,} training images to {options.out}")
    return 0


if __name__ == "__main__":
    run_script(main)
