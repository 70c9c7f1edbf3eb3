"""Requests that the public port takes, and what has confused HTTP servers before."""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import quote

from bridge.adapters.webhook import PATH

SECRET, TOKEN = b"an-app-secret", "a token+&"

HEADERS = [
    *(
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
    ),
    *(b"Content-Length: 99999999999999999999", b"Content-Length: 0x10", b"Content-Length:", b"Content-Length : 5"),
    *(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding:\x0bchunked",
        b" chunked",
    ),
    *(
        b"Expect: 100-continue",
        b"Expect: x",
        b"Connection: close",
        b"Connection: keep-alive, Upgrade",
        b"Connection: x",
    ),
    *(b"Upgrade: websocket", b"Upgrade: h2c", b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Host: other"),
    *(b"X-Hub-Signature-256: sha256=", b"X-Hub-Signature: sha1=00", b"X: y\r\nX: z", b"X: " + b"y" * 9000, b"", b": x"),
    *(
        b"\tfolded",
        b"X: \x00",
        b"X: \xff",
        b"X: a\rb",
        b"X: a\nb",
        b"X\x00: y",
        b"\r\n".join([b"X: y"] * 200),
        b"Trailer: X",
    ),
]
"""Header lines."""

HTTP_TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\r\n \t",
        b"\x00",
        b"\x7f",
        b"\xff",
        b" ",
        b"\t",
        b":",
        b"%00",
        b"%2e%2e/",
        b"//",
    ),
    *(b"0\r\n\r\n", b"5\r\nabcde\r\n", b"ffffffffffffffff\r\n", b"5;a=b\r\n", b"-1\r\n", b"0\r\nX: y\r\n\r\n"),
    *(
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"CONNECT x:1 ",
        b"OPTIONS * ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01",
    ),
    *(b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"http://h/webhooks/instagram", b"A" * 9000),
]
"""Bytes for anywhere."""

VERIFICATION = (
    f"GET {PATH}?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={quote(TOKEN)} HTTP/1.1\r\nHost: h\r\n\r\n"
).encode()


class Signed:
    """An authentic delivery of one item.

    Attributes:
        item: its bytes, which are found again in the record.
        signature: in hex.
    """

    def __init__(self, number: int) -> None:
        item = {"sender": {"id": "1"}, "recipient": {"id": "2"}, "message": {"mid": f"m{number}.", "text": "the-text"}}
        self.item = json.dumps(item).encode()
        self._body = b'{"object":"instagram","entry":[{"id":"2","time":1,"messaging":[%s]}]}' % self.item
        self.signature = hmac.digest(SECRET, self._body, hashlib.sha256).hex().encode()

    def requests(self) -> list[bytes]:
        """It as requests: with its length, in chunks, and as an old proxy or a careful client would send it."""
        body, half = self._body, len(self._body) // 2
        head = b"POST %s HTTP/1.1\r\nHost: h\r\nX-Hub-Signature-256: sha256=%s\r\n" % (PATH.encode(), self.signature)
        length = b"Content-Length: %d\r\n" % len(body)
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]))
        return [
            head + length + b"\r\n" + body,
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
            head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Connection: keep-alive\r\n" + length + b"\r\n" + body,
            head + length + b"Expect: 100-continue\r\n\r\n" + body,
        ]
