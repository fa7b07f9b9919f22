"""Folders of their own for every test, a server on this machine, and an MNIST of 144 images."""

import gzip
import hashlib
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from course_utils.data import store


@pytest.fixture
def home(tmp_path, monkeypatch):
    """`.shared` is $COURSE_DATA (it exists), `.own` is where downloads go (it does not exist yet)."""
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    monkeypatch.setenv("COURSE_DATA", str(shared))
    monkeypatch.delenv("COURSE_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(store, "own_folder", lambda: own)
    return SimpleNamespace(shared=shared, own=own)


@pytest.fixture
def server():
    """`.files` maps a path to its bytes, a path in `.broken` drops the connection half way, `.asked` lists requests."""
    state = SimpleNamespace(files={}, broken=set(), asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.path)
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if self.path in state.broken else content)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def as_idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def tiny_mnist(server, monkeypatch):
    """120 training and 24 test images of 28×28, published by the server; pixel (0, 0) is the image's number."""
    from torchvision.datasets import MNIST

    contents = {}
    for (name, _), n in zip(MNIST.resources, (120, 120, 24, 24), strict=True):
        images = np.zeros((n, 28, 28))
        images[:, 0, 0] = np.arange(n)
        images[:, 1, 2] = 255
        contents[name] = as_idx(images if "images" in name else np.arange(n) % 10)
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.url}/mnist/"])
    monkeypatch.setattr(
        MNIST, "resources", [(name, hashlib.md5(content).hexdigest()) for name, content in contents.items()]
    )
    server.files.update({f"/mnist/{name}": content for name, content in contents.items()})
    return contents


@pytest.fixture
def snapshot():
    """A function: folder -> what is in it, names and bytes and times of change."""

    def look(folder):
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
            for path in [folder, *folder.rglob("*")]
        }

    return look
