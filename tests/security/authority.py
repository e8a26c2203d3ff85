"""An authority of the test's own, certificates that it signs, and fronts for services that lack TLS."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


class Authority:
    """A self-signed authority in a folder; `issue` writes NAME.pem, NAME.key and both in NAME.both."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {folder.name}")])
        self.certificate = folder / "ca.pem"
        signed = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.certificate.write_bytes(signed)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the paths of a certificate for localhost and its key (PKCS #8)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(self._signed(subject, key, x509.BasicConstraints(ca=False, path_length=None)))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        both = self._folder / f"{name}.both"
        both.write_bytes(private.read_bytes() + certificate.read_bytes())
        return certificate, private

    def server_context(self) -> ssl.SSLContext:
        """A server's context that asks clients for a certificate of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.certificate))
        context.load_cert_chain(*map(str, self.issue("front")))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _signed(self, subject: x509.Name, key: Any, constraints: x509.BasicConstraints) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + 30 * _DAY)
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(own, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def tls_front(port: int, context: ssl.SSLContext) -> tuple[int, Callable[[], None]]:
    """Listen with TLS and pass bytes to a port of this machine; return the front's port and how to close it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                came, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(came,), daemon=True).start()

    def handle(came: socket.socket) -> None:
        try:
            inside = context.wrap_socket(came, server_side=True)
        except OSError:  # a client that does not trust us, or has no certificate
            came.close()
            return
        outside = socket.create_connection(("127.0.0.1", port))
        for one, other in ((inside, outside), (outside, inside)):
            threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], listener.close


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        each.close()


def https_front(
    address: str, context: ssl.SSLContext, username: str, password: str
) -> tuple[int, Callable[[], None]]:
    """Listen with HTTPS and basic authentication in front of an address; return port and how to close it."""
    wanted = "Basic " + b64encode(f"{username}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != wanted:
                self._answer(401, b'{"message": "who are you?"}')
                return
            kind = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            request = urllib.request.Request(address + self.path, body or None, kind, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    self._answer(answer.status, answer.read())
            except urllib.error.HTTPError as refusal:
                self._answer(refusal.code, refusal.read())

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            try:  # the handshake belongs to the connection's own thread
                super().finish_request(context.wrap_socket(request, server_side=True), client_address)
            except OSError:
                request.close()

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def close() -> None:
        server.shutdown()
        server.server_close()

    return server.server_port, close
