"""A connection that knows its client's head takes the next request as one that has to parse it does, whatever was done to it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.adapters.http_messages import Requests
from bridge.errors import BadRequest

BODY = b'{"object":"instagram"}'
SIGNATURE = b"X-Hub-Signature-256: sha256=" + b"0a" * 32
OTHERS = [b"X-Hub-Signature: sha1=" + b"0f" * 20, b"Accept: */*", b"Expect: 100-continue", b"A: b: 12\t", b"a:"]
INSERTED = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"-",
    b"g",
    b"7",
    b"0" * 70,
    b"\xb2",
    b"\r\nContent-Length: 1",
    b"\r\n\r\n",
]

examples = settings(max_examples=1500, deadline=None, derandomize=True)


def rendered(others: Sequence[bytes], digit: bytes, body: bytes) -> bytes:
    length = b"content-length: %d" % len(body)
    lines = [b"POST /webhooks/instagram HTTP/1.1", b"Host: a", *others, length, SIGNATURE.replace(b"0", digit), b"Z: 1"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@st.composite
def changed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request, and what comes after it: the same with other digits, or with anything else done to it."""
    others = draw(st.lists(st.sampled_from(OTHERS), unique=True))
    first = rendered(others, b"0", BODY)
    second = rendered(others, draw(st.sampled_from([b"0", b"f", b"Z", b"9"])), b"1" * draw(st.integers(0, 1200)))
    for _ in range(draw(st.integers(0, 2))):
        digits = max(0, second.find(draw(st.sampled_from([b"sha256=", b"length: "]))))
        at = draw(st.integers(digits, digits + 15) | st.integers(0, len(second)))
        inserted = draw(st.sampled_from([b"", *INSERTED]))
        second = second[:at] + inserted + second[at + draw(st.sampled_from([len(inserted), 0, 3])) :]
    return first, second


def told(requests: Requests, data: bytes) -> tuple[list[dict[str, object]], bool, str]:
    """What the requests are that the bytes make, whether another has begun, and what is wrong with it."""
    fault = ""
    try:
        requests.feed(data)
        requests.feed(b"")
    except BadRequest as error:
        fault = str(error)
    made = [{**vars(each), "pieces": b"".join(each.pieces), "head": None} for each in requests.waiting]
    return made, requests.in_head, fault


def taken(requests: Requests, pieces: Sequence[bytes]) -> None:
    """Feed the pieces of one request, which turns out to be an authentic delivery."""
    for piece in pieces:
        requests.feed(piece)
    request = requests.waiting.popleft()
    assert request.read() == BODY
    if request.head:
        requests.remember(request)


@examples
@given(changed())
@example((rendered([], b"0", BODY), rendered([], b"Z", b"12345")))
def test_what_follows_a_familiar_head_is_what_a_parser_makes_of_it(case: tuple[bytes, bytes]) -> None:
    """Requests, faults and unfinished heads are the same where the first came whole and where it came in two pieces."""
    first, second = case
    knowing, parsing = Requests(), Requests()
    taken(knowing, [first])
    taken(parsing, [first[:20], first[20:]])
    found = told(knowing, second)
    assert found == told(parsing, second)
    if not found[-1]:  # after a fault a connection is read no more
        assert told(knowing, first) == told(parsing, first)


def test_the_parser_is_not_asked_about_a_familiar_head() -> None:
    """Else the test above would compare it with itself."""
    requests, asked = Requests(), []
    first = rendered([], b"0", BODY)
    taken(requests, [first])
    requests.on_message_begin = lambda: asked.append(1)  # type: ignore[method-assign] # httptools has the first one
    requests.feed(rendered([], b"f", b"12345"))
    assert [request.read() for request in requests.waiting] == [b"12345"]
    assert not asked
