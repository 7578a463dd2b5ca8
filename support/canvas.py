"""The page to draw on: a small server for canvas.html, the page, and what it asks for.

Whoever knows the address that is printed may use it: the first part of its path is a random token.
A page of another site in the same browser can reach this server, too, but not read the token; its
requests are refused for their Origin, and those that come by another name than the printed ones
(DNS rebinding) for their Host. Each connection carries one request, and has PATIENCE seconds to
send it.
"""
import base64
import errno
import hashlib
import hmac
import io
import json
import os
import re
import secrets
import signal
import socket
import socketserver
import sys
import threading
import time
import traceback
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from support.answers import UNSURE, Answer
from support.command_line import printable, say
from support.errors import FormatError, UsageError, require
from support.files import sha256
from support.folders import folder_of
from support.ink import Candidate, composite
from support.pictures import read_picture
from support.png import png_bytes, write_png

PAGE = Path(__file__).with_name("canvas.html")
KEPT = Path("my-digits")  # a data set of folders, as train.py reads them
MAX_BODY = 20_000_000  # bytes; what the page itself sends is smaller than 5 MB
PATIENCE = 10  # seconds for a whole request, and as many for the answer
CONNECTIONS = 64  # at once: eight browsers may open six each
OTHER = "other"


@dataclass
class Reader:
    """What the page needs of networks."""
    name: str  # of the checkpoint
    labels: list[str]  # of the classes
    read: Callable[[np.ndarray], tuple[Answer, list[Candidate]]]  # of a picture (H, W, 3)
    inside: Callable[[np.ndarray, int], str]  # (28, 28) and its number: SVG of the activations


# --- What the page is told ------------------------------------------------------------------------

@dataclass
class Seen:
    """A candidate as the page shows it."""
    pixels: np.ndarray  # (28, 28) uint8
    box: list[float]  # top, left, bottom, right in pixels of the picture
    bars: list[tuple[str, float]]  # the probabilities of ten labels at the most, and of *other*
    chosen: bool

    def json(self) -> dict:
        label, confidence = max(self.bars[:-1], key=lambda bar: bar[1])
        return {"label": label, "confidence": confidence, "bars": self.bars, "box": self.box,
                "chosen": self.chosen, "seen": base64.b64encode(png_bytes(self.pixels)).decode()}


def bars(labels: list[str], chances: list[float], other: float) -> list[tuple[str, float]]:
    best = sorted(range(len(labels)), key=lambda k: -chances[k])[:10]
    return [(labels[k], chances[k]) for k in sorted(best)] + [(OTHER, other)]


def in_order(answer: Answer, candidates: list[Candidate], labels: list[str]) -> list[Seen]:
    """What the network saw, as the page numbers it: what was read, in the order of reading; then
    the other candidates, the likeliest first: the largest one is often the paper."""
    found = [Seen(reading.seen, reading.box, bars(labels, reading.probabilities, reading.other),
                  True) for reading in answer.digits]
    for candidate in sorted(candidates, key=lambda candidate: -candidate.certainty):
        if any(candidate.seen is reading.seen for reading in answer.digits):
            continue
        *chances, other = candidate.probabilities.tolist()
        digits = [str(digit) for digit in range(len(chances))]  # the finder's, whatever is read
        found.append(Seen(candidate.seen, candidate.box.tolist(), bars(digits, chances, other),
                          False))
    return found


# --- Drawings that are kept -----------------------------------------------------------------------

def keep(seen: np.ndarray, folder: str, folders: list[str]) -> Path:
    """Write a digit (28, 28) uint8, as the network saw it, into the folder of its class. Its name
    follows from its pixels: kept again with another answer, it leaves the folder of the first."""
    name = f"{sha256(np.ascontiguousarray(seen))[:16]}.png"
    path = KEPT / "train" / folder / name
    write_png(path, seen)
    for other in folders:
        if other != folder:
            (KEPT / "train" / other / name).unlink(missing_ok=True)
    return path


def counts(folders: list[str]) -> list[int]:
    """How many drawings of each class are kept."""
    return [len(list((KEPT / "train" / folder).glob("*.png"))) for folder in folders]


# --- One request ----------------------------------------------------------------------------------

class Refused(Exception):
    """A request that gets no answer but a status and a line that says why."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status, self.headers = status, headers


class TooSlow(Exception):
    """A request did not come within PATIENCE. Not a TimeoutError: http.server swallows those."""


class Received(io.RawIOBase):
    """What comes through a connection within PATIENCE seconds; then it raises TooSlow. A timeout of
    the socket alone would begin again with each byte."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.until = time.monotonic() + PATIENCE
        self.anything = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TooSlow
        self.connection.settimeout(left)
        try:
            count = self.connection.recv_into(buffer)
        except TimeoutError:
            raise TooSlow from None
        self.anything = self.anything or count > 0
        return count


class Handler(BaseHTTPRequestHandler):
    """One connection, which is one request: HTTP/1.0, after which it is closed."""
    server: "Server"
    default_request_version = "HTTP/1.0"  # not 0.9, whose answers have no status
    request_version = requestline = ""  # until they are known
    command = None

    def setup(self) -> None:
        super().setup()
        self.received = Received(self.connection)
        self.rfile = io.BufferedReader(self.received)

    def handle(self) -> None:
        try:
            self.handle_one_request()
        except TooSlow:
            if self.received.anything:  # browsers open connections that they may need later
                self.refuse(408, f"the request was not whole after {PATIENCE} s")
        except ConnectionError:
            pass  # the browser has gone

    def answer(self) -> None:
        """Any method comes here."""
        try:
            where, query = self.checked()
            if where == ("GET", ""):
                self.reply("text/html; charset=utf-8", self.server.page)
            elif where == ("GET", "model"):
                self.reply_json(self.server.about())
            elif where == ("POST", "read"):
                self.reply_json(*self.server.read(self.body()))
            elif where == ("POST", "inside"):
                self.reply("image/svg+xml", self.server.inside(self.body(), query))
            else:
                self.reply_json(self.server.keep(self.body(), query))
        except Refused as refusal:
            self.refuse(refusal.status, str(refusal), refusal.headers)
        except (FormatError, UsageError) as error:  # the picture's, or the folder's
            self.refuse(400, str(error))
        except (ConnectionError, TooSlow):
            raise
        except OSError as error:  # a full disk, say
            self.refuse(500, f"{error.filename or 'the server'}: {error.strerror or error}")
        except MemoryError:
            self.refuse(500, "out of memory; try a smaller picture")
        except Exception:  # a mistake of this program: the page gets an answer all the same
            traceback.print_exc()
            self.refuse(500, "the program made a mistake; its terminal shows which")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    # --- What is refused

    METHODS = {"": "GET", "model": "GET", "read": "POST", "inside": "POST", "keep": "POST"}

    def checked(self) -> tuple[tuple[str, str], dict]:
        """The method and the name that is asked for, and the parameters. Raises Refused for all
        that this page would not send."""
        hosts = [host.lower() for host in self.headers.get_all("Host", [])]
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            raise Refused(403, "this address is not one that infer.py has printed")
        if self.headers.get("Origin", f"http://{hosts[0]}").lower() != f"http://{hosts[0]}":
            raise Refused(403, "the request comes from another page")
        try:
            url = urlsplit(self.path)
            query = parse_qs(url.query, max_num_fields=4)
        except ValueError:
            raise Refused(400, "this is no path of a page") from None
        _, token, *rest = f"{url.path}/".split("/", 2)
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "open the whole address that infer.py has printed, with its token")
        name = "".join(rest).rstrip("/")
        if name not in self.METHODS:
            raise Refused(404, "there is no such page")
        method = "GET" if self.command == "HEAD" else self.command
        if method != self.METHODS[name]:
            raise Refused(405, f"expected the method {self.METHODS[name]}, found {self.command}",
                          Allow=self.METHODS[name])
        return (method, name), query

    def body(self) -> bytes:
        """What was sent with the request. Raises Refused for a body that is too large, that ends
        early or does not say how long it is."""
        if "Transfer-Encoding" in self.headers:
            raise Refused(411, "expected a body with Content-Length, found Transfer-Encoding")
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths:
            raise Refused(411, "expected a body with Content-Length, found none")
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,20}", lengths[0]):
            raise Refused(400, "expected one Content-Length, a number of bytes")
        length = int(lengths[0])
        if length > MAX_BODY:
            raise Refused(413, f"expected a picture of at most {MAX_BODY:,} bytes, "
                          f"found {length:,}")
        data = self.rfile.read(length)
        if len(data) < length:
            raise Refused(400, f"expected {length:,} bytes, found {len(data):,}")
        return data

    # --- Answers

    def reply(self, kind: str, content: str | bytes, status: int = 200,
              headers: dict[str, str] | None = None) -> None:
        """Send an answer of this media type."""
        if isinstance(content, str):
            content = content.encode()
        self.connection.settimeout(PATIENCE)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply_json(self, content: dict, headers: dict[str, str] | None = None) -> None:
        self.reply("application/json", json.dumps(content), headers=headers)

    def end_headers(self) -> None:
        """Every answer says: the page's own script and style, and nothing from elsewhere; not to be
        stored, framed or taken for another type; and its address is not to be told to others."""
        for name, value in {"Content-Security-Policy": self.server.policy,
                            "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
                            "Referrer-Policy": "same-origin",
                            "Cross-Origin-Resource-Policy": "same-origin"}.items():
            self.send_header(name, value)
        super().end_headers()

    def send_error(self, code, message=None, explain=None) -> None:
        """What http.server itself refuses."""
        self.refuse(code, message or self.responses[code][0])

    def refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer in one line. Then read on for a moment what is still being sent: closing at once
        would take the answer away from the sender, too (RFC 9112, section 9.6)."""
        try:
            self.reply("text/plain; charset=utf-8", printable(message), status, headers)
            self.connection.shutdown(socket.SHUT_WR)
            until = time.monotonic() + 2
            while time.monotonic() < until:
                self.connection.settimeout(2)
                if not self.connection.recv(1 << 16):
                    break
        except OSError:
            pass  # the browser has gone

    def version_string(self) -> str:
        return "infer.py"

    def log_message(self, *_) -> None:
        pass  # the terminal is for the address


# --- The server -----------------------------------------------------------------------------------

class Server(ThreadingHTTPServer):
    """A thread for each connection, CONNECTIONS at the most; pictures are read in turn."""
    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would let another program take the port
    request_queue_size = CONNECTIONS

    def __init__(self, reader: Reader, host: str, port: int):
        self.address_family, address = resolved(host, port)
        try:
            super().__init__(address, Handler)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"--host {host}: expected an address of this machine") from None
            raise UsageError(f"--port {port}: {error.strerror}; give another one, or 0 for any "
                             "that is free") from None
        self.reader = reader
        self.folders = [folder_of(label, number) for number, label in enumerate(reader.labels)]
        self.token = secrets.token_urlsafe(16)
        self.turn = threading.Lock()  # around the networks
        self.free = threading.BoundedSemaphore(CONNECTIONS)
        html = PAGE.read_text(encoding="utf-8")
        self.page = html.encode()
        self.policy = policy(html)
        port = self.server_address[1]
        names = [host]
        if address[0] in ("0.0.0.0", "::"):
            names = own_addresses(self.address_family)
        self.urls = [f"http://{with_port(name, port)}/{self.token}/" for name in names]
        if host == "127.0.0.1":
            names.append("localhost")  # what a tunnel to this machine is called
        self.hosts = {with_port(name, port).lower() for name in names}

    def server_bind(self) -> None:
        """Without http.server's own, which asks the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request, client_address) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            request.send(b"HTTP/1.0 503 Service Unavailable\r\n\r\n")
            self.shutdown_request(request)

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # OSError: the browser has gone
            traceback.print_exc()

    # --- What Handler asks for

    def about(self) -> dict:
        return {"name": self.reader.name, "labels": self.reader.labels,
                "kept": counts(self.folders), "folder": str(KEPT / "train")}

    def look(self, data: bytes) -> tuple[Answer, list[Seen]]:
        with self.turn:
            answer, candidates = self.reader.read(composite(read_picture(data)))
        return answer, in_order(answer, candidates, self.reader.labels)

    def read(self, data: bytes) -> tuple[dict, dict]:
        """What was read in a picture file; and a header that says how many milliseconds it took,
        which browsers show among the network's times."""
        started = time.perf_counter()
        answer, seen = self.look(data)
        said = {"error": answer.error, "candidates": [each.json() for each in seen]}
        if answer.rows:
            said |= {"text": answer.text, "confidence": answer.confidence,
                     "unsure": answer.confidence < UNSURE}
        took = 1000 * (time.perf_counter() - started)
        return said, {"Server-Timing": f"read;dur={took:.1f}"}

    def candidate(self, data: bytes, query: dict) -> tuple[np.ndarray, int]:
        """The candidate of a picture file that the parameter `candidate` numbers, and the number:
        reading the same picture again gives the same ones."""
        _, seen = self.look(data)
        number = parameter(query, "candidate", len(seen))
        return seen[number].pixels, number

    def inside(self, data: bytes, query: dict) -> str:
        seen, number = self.candidate(data, query)
        with self.turn:
            return self.reader.inside(seen, number + 1)

    def keep(self, data: bytes, query: dict) -> dict:
        label = parameter(query, "label", len(self.folders))
        seen, _ = self.candidate(data, query)
        path = keep(seen, self.folders[label], self.folders)
        return {"path": str(path), "kept": counts(self.folders)}


def parameter(query: dict, name: str, count: int) -> int:
    """A number from 0 to count - 1. Raises Refused."""
    text, = query.get(name, [""])[:1]
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) >= count:
        raise Refused(400, f"expected {name} to be a number from 0 to {count - 1}")
    return int(text)


def policy(html: str) -> str:
    """The Content-Security-Policy of the page: its own script and style, told by their SHA-256, and
    the pictures that the script makes. Nothing else is loaded, and no other page may frame it."""
    hashes = {}
    for name in ("script", "style"):
        inside, = re.findall(f"<{name}>(.*?)</{name}>", html, re.S)
        digest = hashlib.sha256(inside.encode()).digest()
        hashes[name] = base64.b64encode(digest).decode()
    return (f"default-src 'none'; script-src 'sha256-{hashes['script']}'; "
            f"style-src 'sha256-{hashes['style']}'; img-src data: blob:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


# --- Addresses ------------------------------------------------------------------------------------

def resolved(host: str, port: int) -> tuple[int, tuple]:
    """The family of a host's address, and the address. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UsageError(f"--host {host}: expected a name or an address of this machine") from None
    family, *_, address = found[0]
    return family, address


def own_addresses(family: int) -> list[str]:
    """The addresses of this machine, as far as it knows them."""
    found = ["127.0.0.1" if family == socket.AF_INET else "::1"]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent
            probe.connect(("192.0.2.1" if family == socket.AF_INET else "2001:db8::1", 9))
            found.append(probe.getsockname()[0])
    except OSError:
        pass  # no network
    try:
        found += [address[0] for *_, address in socket.getaddrinfo(socket.gethostname(), None,
                                                                   family)]
    except OSError:
        pass  # a machine whose name nobody knows
    return [name for name in dict.fromkeys(found) if "%" not in name]  # of one link only


def with_port(name: str, port: int) -> str:
    """As it stands in an address, and in the header Host: without the port that is HTTP's own."""
    if ":" in name:
        name = f"[{name}]"
    return name if port == 80 else f"{name}:{port}"


# --- From start to end ----------------------------------------------------------------------------

def serve(reader: Reader, host: str, port: int, browser: bool) -> None:
    """Print the page's address, open it if `browser` says so, and serve it until Ctrl-C. Raises
    UsageError for a host or port that it cannot have."""
    require(0 <= port <= 65535, "--port", "from 0 to 65535", port)
    with Server(reader, host, port) as server:
        try:
            for url in server.urls:
                say(f"draw on {url}")
            if host not in ("127.0.0.1", "localhost", "::1"):
                say("everybody who has such an address and reaches this machine can use the page, "
                    "and fill\nmy-digits/; what is drawn travels unencrypted: keep to a network "
                    "that you trust", sys.stderr)
            say("Ctrl-C ends it", sys.stderr)
            if browser and has_display():
                threading.Thread(target=webbrowser.open, args=server.urls[:1], daemon=True).start()
            server.serve_forever()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not break the first
            server.turn.acquire(timeout=1)  # torch is not to be left while it computes


def has_display() -> bool:
    """Whether a browser would have a window: one for terminals would take this one."""
    if os.name == "nt" or sys.platform == "darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
