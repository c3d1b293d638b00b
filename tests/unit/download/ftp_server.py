"""An FTP server of our own that misbehaves on demand."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CONTENT = bytes(range(256)) * 2000


@dataclass
class FtpSite:
    """What the server holds, and how it misbehaves: `cuts` are numbers of bytes after which it hangs up."""

    url: str = ""
    content: bytes = CONTENT
    changed: str = "20261102100000"
    cuts: list[int] = field(default_factory=list)
    knows_sizes: bool = True
    knows_rests: bool = True
    asked: list[str] = field(default_factory=list)


class Handler(socketserver.StreamRequestHandler):
    site: FtpSite
    rest = 0
    listening: socket.socket

    def handle(self) -> None:
        self.say("220 ready")
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            self.site.asked.append(f"{verb} {rest}".strip())
            getattr(self, f"do_{verb.lower()}", lambda _: self.say("502 unknown"))(rest)
            if verb == "QUIT":
                return

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def do_user(self, _: str) -> None:
        self.say("331 and the password?")

    def do_pass(self, _: str) -> None:
        self.say("230 welcome")

    def do_type(self, _: str) -> None:
        self.say("200 so be it")

    def do_size(self, _: str) -> None:
        self.say(f"213 {len(self.site.content)}" if self.site.knows_sizes else "502 unknown")

    def do_mdtm(self, _: str) -> None:
        self.say(f"213 {self.site.changed}")

    def do_rest(self, first: str) -> None:
        if not self.site.knows_rests:
            self.say("502 unknown")
            return
        self.rest = int(first)
        self.say("350 from there")

    def do_pasv(self, _: str) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        port = self.listening.getsockname()[1]
        self.say(f"227 here (127,0,0,1,{port // 256},{port % 256})")

    def do_retr(self, path: str) -> None:
        if not path.endswith("a.zip"):
            self.say("550 no such file")
            self.listening.close()
            return
        self.say("150 here it comes")
        body = self.site.content[self.rest :]
        cut = self.site.cuts.pop(0) if self.site.cuts else None
        taken, _ = self.listening.accept()
        with taken, self.listening:
            taken.sendall(body[:cut])
        self.say("226 done" if cut is None else "426 broken off")

    def do_quit(self, _: str) -> None:
        self.say("221 bye")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client may hang up."""


@contextmanager
def serving() -> Iterator[FtpSite]:
    """Serve one file, whatever its name ends in, until the block ends."""
    handler = type("Bound", (Handler,), {"site": FtpSite()})
    with Server(("127.0.0.1", 0), handler) as listening:
        handler.site.url = f"ftp://127.0.0.1:{listening.server_address[1]}/pub"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler.site
        listening.shutdown()
        thread.join()
