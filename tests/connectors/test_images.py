"""Pictures by their address, from a folder and from a real server that misbehaves on request."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from connectors.images import AddressRefusedError, ImageSource, ImagesUnavailableError

BODY = b"picture" * 1_000


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/").partition("?")[0]
        if name.isdigit():
            self.send_response(int(name))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if name.startswith(("to-", "round")):
            self.send_response(302)
            self.send_header("Location", "/round" if name == "round" else f"//{name[3:]}/x")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        try:
            if name == "endless":
                while True:
                    self.wfile.write(BODY)
            for each in range(40 if name == "slow" else 1):
                self.wfile.write(BODY if name != "slow" else bytes([each]))
                self.wfile.flush()
                time.sleep(0.1 if name == "slow" else 0)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def source(folder=None, hosts=(), **more):
    told = {"most_bytes": 10_000, "timeout_s": 30.0, "patience_s": 0.0} | more
    return ImageSource(folder=folder, hosts=hosts, **told)


def test_what_stands_at_an_address_is_fetched(server, tmp_path):
    assert source(hosts=[server]).fetch(f"http://{server}/a.jpg") == BODY
    (tmp_path / "a picture.png").write_bytes(b"here")
    assert source(tmp_path).fetch(f"file://{tmp_path}/a%20picture.png") == b"here"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("404", "answers 404"), ("403", "answers 403"), ("204", "answers 204"),
        ("endless", "more than 10,000 bytes"), ("round", "redirected more than 3 times"),
        ("to-169.254.169.254", "169.254.169.254, which is not in image.hosts"),
    ],
)  # fmt: skip
def test_what_will_not_come_is_refused_at_once(server, path, said):
    with pytest.raises(AddressRefusedError, match=said):
        source(hosts=[server], patience_s=1_000).fetch(f"http://{server}/{path}")


@pytest.mark.parametrize(
    "address",
    [
        "", "picture.jpg", "ftp://127.0.0.1/a", "gopher://x", "http://", "http://[::1", "https://user@evil/x",
        "http://127.0.0.1:99999/x", "data:image/png;base64,AAAA", "http:///x", "http://127.0.0.1\x00/x",
    ],
)  # fmt: skip
def test_an_address_that_may_not_be_read_is_refused(address):
    with pytest.raises(AddressRefusedError, match="image_url"):
        source(hosts=["127.0.0.1"], patience_s=1_000).fetch(address)


def test_no_file_outside_of_the_folder_is_read(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "secret"
    inside.mkdir()
    outside.write_bytes(b"x" * 20_000)
    (inside / "link").symlink_to(outside)
    (inside / "large").write_bytes(b"x" * 20_000)
    reads = source(inside)
    for path, said in (
        (outside, "not in image.folder"), (inside / ".." / "secret", "not in image.folder"),
        (inside / "link", "not in image.folder"), (inside / "none", "there is no file"),
        (inside, "there is no file"),
        (inside / "large", "more than 10,000 bytes"), ("/etc/passwd", "not in image.folder"),
    ):  # fmt: skip
        with pytest.raises(AddressRefusedError, match=said):
            reads.fetch(f"file://{path}")
    with pytest.raises(AddressRefusedError, match=r"image\.folder is unset"):
        source().fetch(f"file://{inside}/large")


def test_a_server_that_is_away_is_tried_again_until_patience_ends(server):
    now = [0.0]
    reads = source(hosts=[server, "127.0.0.1:9"], patience_s=60.0, clock=lambda: now[0])
    for address, said in ((f"http://{server}/503", "answers 503"), ("http://127.0.0.1:9/x", "does not answer")):
        with pytest.raises(ImagesUnavailableError, match=said):
            reads.fetch(address)
        now[0] += 59
        with pytest.raises(ImagesUnavailableError):
            reads.fetch(address)
        now[0] += 2
        with pytest.raises(AddressRefusedError, match="for 60 s"):
            reads.fetch(address)


def test_a_body_that_drips_is_given_up(server):
    with pytest.raises(ImagesUnavailableError, match=r"takes more than 0\.5 s"):
        source(hosts=[server], timeout_s=0.5, patience_s=1_000).fetch(f"http://{server}/slow")
