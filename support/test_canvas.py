"""Tests of canvas.py over HTTP, most of them against a real `infer.py --draw`."""
import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import unittest
from contextlib import contextmanager
from html.parser import HTMLParser
from unittest import mock

import idx_data
import infer
import model
from support import canvas, png
from support.answers import Answer
from support.errors import UsageError
from support.test_tools import HERE, TestCase, heed_all, picture, run, written

import numpy as np
import torch

SEVEN = png.png_bytes(picture(written("7")))


def start(folder, *arguments) -> tuple[subprocess.Popen, str]:
    """A process with the page, and the page's address."""
    process = subprocess.Popen([sys.executable, str(HERE / "infer.py"), "--draw", "--no-browser",
                                *map(str, arguments)], cwd=folder, text=True,
                               preexec_fn=heed_all, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    line = process.stdout.readline()
    found = re.search(r"http://\S+/", line)
    assert found, line + process.communicate()[1]
    return process, found[0]


def stop(process: subprocess.Popen) -> tuple[int, str]:
    """Ctrl-C; the exit status and what was said on stderr."""
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def ask(url: str, method: str = "GET", body=None, **headers) -> tuple[int, bytes, dict]:
    """Status, content and headers of an answer."""
    _, _, host, path = url.split("/", 3)
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        connection.request(method, f"/{path}", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def send(url: str, data: bytes, end: bool = True) -> bytes:
    """What comes back for these bytes; `end`: whether the sender says that there are no more."""
    _, _, host, _ = url.split("/", 3)
    name, port = host.split(":")
    with socket.create_connection((name, int(port)), timeout=60) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    return received


class Elements(HTMLParser):
    """The text inside each <script> and <style>, as a browser takes it."""

    def __init__(self):
        super().__init__()
        self.inside, self.found = "", {"script": [], "style": []}

    def handle_starttag(self, tag, attributes):
        self.inside = tag

    def handle_data(self, data):
        if self.inside in self.found:
            self.found[self.inside].append(data)

    def handle_endtag(self, tag):
        self.inside = ""


# --- A real process -------------------------------------------------------------------------------

class TestDraw(TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls("test_reads_a_drawing")
        case.setUp()
        cls.addClassCleanup(case.doCleanups)
        cls.place = case.folder
        cls.process, cls.url = start(cls.place)
        cls.addClassCleanup(cls.process.communicate)
        cls.addClassCleanup(cls.process.kill)
        cls.host, cls.path = re.fullmatch("http://([^/]+)(/.+/)", cls.url).groups()

    def read(self, data: bytes, what: str = "read") -> dict:
        status, content, headers = ask(self.url + what, "POST", data)
        self.assertEqual(status, 200, content)
        self.assertEqual(headers["Content-Type"], "application/json")
        return json.loads(content)

    def refused(self, expected: int, *words: str, url=None, method="POST", body=SEVEN,
                **headers) -> dict:
        status, content, found = ask(url or self.url + "read", method, body, **headers)
        self.assertEqual(status, expected, content)
        self.assertNotIn(b"\n", content)
        for word in words:
            self.assertIn(word, content.decode())
        return found

    def test_the_page_and_what_it_may_do(self):
        status, content, headers = ask(self.url)
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        for name, value in {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
                            "Referrer-Policy": "same-origin"}.items():
            self.assertEqual(headers[name], value)
        policy = dict(part.strip().split(" ", 1)
                      for part in headers["Content-Security-Policy"].split(";"))
        elements = Elements()
        elements.feed(content.decode())
        for name, texts in elements.found.items():
            self.assertEqual(len(texts), 1)
            digest = base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()
            self.assertEqual(policy[f"{name}-src"], f"'sha256-{digest}'")
        self.assertEqual(policy["default-src"], "'none'")
        self.assertEqual(policy["frame-ancestors"], "'none'")
        self.assertNotIn(b"://", content)  # nothing is fetched from elsewhere
        self.assertEqual(ask(self.url, "HEAD")[:2], (200, b""))

    def test_reads_a_drawing(self):
        said = self.read(SEVEN)
        self.assertEqual((said["text"], said["error"], said["unsure"]), ("7", "", False))
        first, *others = said["candidates"]
        reading, = infer.read_digits(infer.own_finder(), picture(written("7")))
        seen = png.read_png(base64.b64decode(first["seen"]))[..., 0]
        np.testing.assert_array_equal(seen, reading.seen)
        self.assertEqual([label for label, _ in first["bars"]], [*"0123456789", "other"])
        np.testing.assert_allclose([chance for _, chance in first["bars"]],
                                   [*reading.probabilities, reading.other], atol=1e-4)
        self.assertAlmostEqual(said["confidence"], reading.confidence, 4)
        self.assertTrue(others and not any(other["chosen"] for other in others))
        chances = [other["confidence"] for other in others]
        self.assertEqual(chances, sorted(chances, reverse=True))  # the likeliest one first

    def test_a_number_in_rows(self):
        said = self.read(png.png_bytes(picture(written("2026\n53"))))
        self.assertEqual(said["text"], "2026\n53")
        chosen = [candidate["label"] for candidate in said["candidates"] if candidate["chosen"]]
        self.assertEqual("".join(chosen), "202653")

    def test_no_digit(self):
        said = self.read(png.png_bytes(np.full((60, 60), 255, np.uint8)))
        self.assertEqual(said, {"error": "no digit found", "candidates": []})

    def test_inside_the_network(self):
        status, content, headers = ask(self.url + "inside?candidate=0", "POST", SEVEN)
        self.assertEqual((status, headers["Content-Type"]), (200, "image/svg+xml"))
        self.assertIn(b"read as 7", content)
        self.assertIn(b"after relu1", content)

    def test_keeps_a_drawing_in_the_folders_of_a_data_set(self):
        labels = self.read(SEVEN, "keep?candidate=0&label=7")
        path = self.place / labels["path"]
        self.assertEqual(path.parent, self.place / "my-digits/train/7")
        seen = base64.b64decode(self.read(SEVEN)["candidates"][0]["seen"])
        self.assertEqual(path.read_bytes(), seen)
        self.assertEqual(labels["kept"], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0])
        self.assertEqual(self.read(SEVEN, "keep?candidate=0&label=7"), labels)  # not a second time
        digits = idx_data.load_digits(self.place / "my-digits", download=False)
        self.assertEqual(digits.train_labels.tolist(), [7])
        # It was a 1: the same drawing has one answer, the last that was given.
        moved = self.read(SEVEN, "keep?candidate=0&label=1")
        self.assertEqual(moved["kept"], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
        self.assertFalse(path.exists())
        for query in ("candidate=0&label=10", "candidate=0&label=../7", "candidate=0&label=-1",
                      "candidate=0", "candidate=99&label=7", "label=7", "candidate=0&label=%C2%B2"):
            self.refused(400, "expected", url=f"{self.url}keep?{query}")
        kept = [path for path in self.place.rglob("*") if path.is_file()]
        self.assertEqual(kept, [self.place / moved["path"]])

    def test_refuses_strangers(self):
        name, port = self.host.split(":")
        for host in ("evil.example", f"evil.example:{port}", name, f"{name}:1", f"{self.host}.evil",
                     "", f"[::1]:{port}"):
            self.refused(403, "infer.py has printed", Host=host)
        self.assertIn(b" 403 ", send(self.url, f"GET {self.path} HTTP/1.0\r\n\r\n".encode()))
        twice = f"GET {self.path} HTTP/1.0\r\nHost: {self.host}\r\nHost: {self.host}\r\n\r\n"
        self.assertIn(b" 403 ", send(self.url, twice.encode()))
        for origin in ("http://evil.example", "null", f"https://{self.host}", "http://localhost"):
            self.refused(403, "another page", Origin=origin)
        self.assertEqual(ask(self.url + "read", "POST", SEVEN, Origin=f"http://{self.host}")[0],
                         200)
        self.assertEqual(ask(self.url, Host=f"localhost:{port}")[0], 200)  # through a tunnel
        root = f"http://{self.host}"
        for path in ("/", "/read", "/x/read", f"{self.path[:-2]}/read", f"/{self.path[2:]}read",
                     f"{self.path[:-1]}x/read", "/%00/"):
            self.refused(403, "with its token", url=root + path)
        raw = f"GET /é/ HTTP/1.0\r\nHost: {self.host}\r\n\r\n".encode()
        self.assertIn(b" 403 ", send(self.url, raw))

    def test_refuses_other_methods_and_paths(self):
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "GET"):
            headers = self.refused(405, "POST", method=method)
            self.assertEqual(headers["Allow"], "POST")
        self.refused(405, "GET", url=self.url)
        self.refused(501, method="BREW")
        self.refused(404, url=self.url + "favicon.ico", method="GET", body=None)
        self.refused(404, url=self.url + "../infer.py", method="GET", body=None)

    def test_refuses_bodies(self):
        for data, words in [(b"", "an empty file"), (b"GIF", "found"), (b"<html>", "HTML page"),
                            (SEVEN[:-20], "IDAT: expected")]:
            status, content, _ = ask(self.url + "read", "POST", data)
            self.assertEqual(status, 400)
            self.assertIn(words, content.decode())
        self.refused(413, "20,000,000", "20,000,001", body=bytes(20_000_001))
        self.refused(411, "Transfer-Encoding", body=iter([SEVEN]))  # sent in chunks

        def post(*lines: str, body: bytes = b"") -> bytes:
            head = [f"POST {self.path}read HTTP/1.1", f"Host: {self.host}", *lines, "", ""]
            return send(self.url, "\r\n".join(head).encode() + body)

        self.assertIn(b" 411 ", post())
        self.assertIn(b" 413 ", post("Content-Length: 99999999999999999999"))
        for lines in (["Content-Length: -1"], ["Content-Length: 1e3"], ["Content-Length: ²"],
                      ["Content-Length: 3", "Content-Length: 4"], ["Content-Length: " + 30 * "9"]):
            self.assertIn(b" 400 ", post(*lines, body=b"abc"), lines)
        answer = post("Content-Length: 1000", body=SEVEN[:100])
        self.assertIn(b" 400 ", answer)
        self.assertIn(b"expected 1,000 bytes, found 100", answer)
        self.assertEqual(self.read(SEVEN)["text"], "7")  # it is still there

    def test_rubbish_is_answered_or_dropped(self):
        for data in (b"", b"\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(100),
                     b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"a" * 70_000,
                     f"GET http://[ HTTP/1.0\r\nHost: {self.host}\r\n\r\n".encode(),
                     b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n"):
            answer = send(self.url, data)
            self.assertRegex(answer[:12], rb"^$|^HTTP/1.0 (4\d\d|505)")
        self.assertEqual(self.read(SEVEN)["text"], "7")

    def test_eight_at_once(self):
        found = {}

        def read(digit):
            data = png.png_bytes(picture(written(str(digit))))
            found[digit] = [self.read(data)["text"] for _ in range(2)]
        threads = [threading.Thread(target=read, args=(digit,)) for digit in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual(found, {digit: [str(digit)] * 2 for digit in range(8)})


class TestStartAndEnd(TestCase):
    def test_another_model_ctrl_c_and_a_port_in_use(self):
        torch.manual_seed(0)
        model.save(model.build("tiny2k", 3), self.folder / "three.pt")
        process, url = start(self.folder, "--checkpoint", "three.pt")
        self.addCleanup(process.kill)
        about = json.loads(ask(url + "model")[1])
        self.assertEqual((about["name"], about["labels"]), ("three.pt", ["0", "1", "2"]))
        first = json.loads(ask(url + "read", "POST", SEVEN)[1])["candidates"][0]
        self.assertEqual([label for label, _ in first["bars"]], ["0", "1", "2", "other"])
        port = re.search(r":(\d+)/", url)[1]
        done = run("infer.py", "--draw", "--no-browser", "--port", port, cwd=self.folder)
        self.error_line(done, f"--port {port}", "give another one")
        status, error = stop(process)
        self.assertEqual(status, 0)
        self.assertEqual(error.splitlines(), ["checkpoint three.pt", "Ctrl-C ends it"])
        self.assertEqual([path.name for path in self.folder.iterdir()], ["three.pt"])

    def test_wrong_settings(self):
        reader = canvas.Reader("", [], None, None)
        for host, port, *words in [("no such host", 0, "--host"), ("192.0.2.1", 0, "--host"),
                                   ("127.0.0.1", 65536, "--port"), ("127.0.0.1", -1, "--port")]:
            self.fails(lambda h=host, p=port: canvas.serve(reader, h, p, False), *words,
                       kind=UsageError)
        for arguments in ([], ["a.png", "--draw"]):
            self.fails(lambda a=arguments: infer.main(a), "pictures to read, or --draw",
                       kind=UsageError)


# --- The server by itself -------------------------------------------------------------------------

def slow_reader(rgb):
    """Stands for the networks."""
    return Answer("drawing", error="nothing"), []


@contextmanager
def served(host="127.0.0.1"):
    server = canvas.Server(canvas.Reader("a.pt", ["0", "1"], slow_reader, None), host, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestServer(TestCase):
    def test_slow_requests_end_and_free_their_thread(self):
        with mock.patch.object(canvas, "PATIENCE", 0.3), served() as server:
            url, threads = server.urls[0], threading.active_count()
            self.assertEqual(send(url, b"", end=False), b"")  # a connection kept for later
            for data in (b"POST", b"POST / HTTP/1.0\r\nHost:",
                         f"POST /{server.token}/read HTTP/1.0\r\nHost: {url.split('/')[2]}\r\n"
                         "Content-Length: 9\r\n\r\nabc".encode()):
                self.assertIn(b"not whole after", send(url, data, end=False))
            name, port = url.split("/")[2].split(":")
            with socket.create_connection((name, int(port)), timeout=10) as connection:
                with self.assertRaises(OSError):  # each byte alone comes in time
                    for _ in range(2000):
                        connection.sendall(b"x")
                        threading.Event().wait(0.01)
            for _ in range(1000):
                if threading.active_count() == threads:
                    break
                threading.Event().wait(0.01)
            self.assertEqual(threading.active_count(), threads)

    def test_more_connections_than_threads(self):
        with mock.patch.object(canvas, "CONNECTIONS", 2), served() as server:
            name, port = server.urls[0].split("/")[2].split(":")
            waiting = [socket.create_connection((name, int(port))) for _ in range(2)]
            self.assertIn(b" 503 ", send(server.urls[0], b""))
            for connection in waiting:
                connection.close()

    def test_open_to_the_network(self):
        with served("0.0.0.0") as server:
            hosts = [url.split("/")[2] for url in server.urls]
            self.assertIn(f"127.0.0.1:{server.server_address[1]}", hosts)
            local = f"http://{hosts[0]}/{server.token}/"
            for host in hosts:
                self.assertEqual(ask(local, Host=host)[0], 200)
            for host in ("localhost", "0.0.0.0"):
                self.assertEqual(ask(local, Host=f"{host}:{server.server_address[1]}")[0], 403)

    def test_a_disk_that_is_full(self):
        error = OSError(28, os.strerror(28))
        error.filename = "my-digits/train/0/a.png"
        with served() as server, mock.patch.object(server, "keep", side_effect=error):
            status, content, _ = ask(server.urls[0] + "keep", "POST", SEVEN)
        self.assertEqual((status, content.decode()),
                         (500, f"my-digits/train/0/a.png: {os.strerror(28)}"))


if __name__ == "__main__":
    unittest.main()
