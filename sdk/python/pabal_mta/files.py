"""Large contents that the server hands over as open files (Content.token in plugin.proto), so that nobody copies them."""
import os
import socket
import struct
import threading
import time

_PACKET = struct.Struct(">QI")  # the token, and for how many milliseconds the server waits for the answer
_PIECE = 1 << 20


def taker():
    """What takes files from the socket that the environment names, or None where it names none."""
    fd = int(os.environ.pop("MTA_FILES", "-1"))
    if fd < 0:
        return None
    if not hasattr(socket, "recv_fds"):
        os.close(fd)
        return None
    os.set_inheritable(fd, False)
    return Taker(socket.socket(fileno=fd))


class Taker:
    """Takes files from a socket. The server sends a file before the request that names it, so nobody waits for one."""

    def __init__(self, sock):
        self.socket, self.lock, self.came = sock, threading.Lock(), {}  # by token: the descriptor, and until when it is kept
        sock.setblocking(False)

    def take(self, content):
        """The bytes of a content. An OSError says that they can't be had so."""
        with self.lock:
            while content.token not in self.came:
                self._receive()
            fd, _ = self.came.pop(content.token)
        spliced = Spliced(content.data, fd, content.offset)
        if spliced.size != content.size:
            spliced.close()
            raise OSError("a content of %d bytes has %d" % (content.size, spliced.size))
        return spliced

    def _receive(self):
        packet, fds, _, _ = socket.recv_fds(self.socket, _PACKET.size, 1, socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        if len(packet) != _PACKET.size:
            raise OSError("the server sends no files any more")
        now = time.monotonic()
        for token, (fd, end) in list(self.came.items()):
            if now > end:
                os.close(self.came.pop(token)[0])
        token, wait = _PACKET.unpack(packet)
        if fds:  # else this process may have no more
            self.came[token] = fds[0], now + wait / 1000


class Spliced:
    """Some bytes, and then those of a file from an offset on."""

    def __init__(self, head, fd, offset):
        self.head, self.fd, self.offset = head, fd, offset
        self.size = len(head) + max(os.fstat(fd).st_size - offset, 0)

    def seek(self, _start):
        """Is there for Content, which reads from the start each time."""

    def read(self, limit=-1):
        left = self.size if limit < 0 else min(limit, self.size)
        parts = [self.head[:left]]
        left -= len(parts[0])
        at = self.offset
        while left > 0:
            parts.append(os.pread(self.fd, min(left, _PIECE), at))
            if not parts[-1]:
                raise OSError("the file of a content is too short")
            left, at = left - len(parts[-1]), at + len(parts[-1])
        return b"".join(parts)

    def close(self):
        fd, self.fd = self.fd, -1  # which may soon be the number of another file
        os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
