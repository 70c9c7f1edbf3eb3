"""GET /webhooks/instagram, as Meta and others send it."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.http.wire import MARKER, PATH, Connection, exchange, request
from tests.kafka.serving import VERIFY_TOKEN, Street

TOKEN = quote(VERIFY_TOKEN, safe="")


def get(*parameters: str) -> bytes:
    return request("GET", f"{PATH}?{'&'.join(parameters)}")


def meta(challenge: str, *, token: str = TOKEN, mode: str = "subscribe") -> bytes:
    return get(f"hub.mode={mode}", f"hub.challenge={challenge}", f"hub.verify_token={token}")


@pytest.mark.parametrize("challenge", ["0", "1158201444", "007", "9" * 64])
async def test_verification_request_of_meta_echoes_the_challenge(street: Street, challenge: str) -> None:
    """The challenge is the whole body, as plain text that no browser takes for more."""
    answer = await exchange(street.serving.port, meta(challenge))

    assert (answer.status, answer.body) == (200, challenge.encode())
    assert answer.headers["content-type"].partition(";")[0] == "text/plain"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_verification_request_in_another_spelling_is_the_same(street: Street) -> None:
    """Order, further parameters and percent-encoding do not matter."""
    first = get("x=1", f"hub.verify_token={TOKEN}", "hub.challenge=%31%35", "hub.mode=%73ubscribe", "hub.x")
    second = get("hub%2Emode=subscribe", "hub%2Echallenge=15", f"hub%2Everify_token={TOKEN.replace('%20', '+')}")

    for spelling in (first, second):
        answer = await exchange(street.serving.port, spelling)
        assert (answer.status, answer.body) == (200, b"15")


@pytest.mark.parametrize(
    "parameters",
    [
        (),
        ("hub.mode=subscribe", "hub.challenge=1"),
        ("hub.mode=subscribe", "hub.challenge=1", "hub.verify_token="),
        ("hub.mode=subscribe", "hub.challenge=1", "hub.verify_token"),
        ("hub.mode=subscribe", "hub.challenge=1", f"hub.verify_token={MARKER}"),
        ("hub.mode=subscribe", "hub.challenge=1", f"hub.verify_token={TOKEN[:-1]}"),
        ("hub.mode=subscribe", "hub.challenge=1", f"hub.verify_token={TOKEN}%00"),
        ("hub.mode=subscribe", "hub.challenge=1", f"hub.verify_token={quote(VERIFY_TOKEN.upper(), safe='')}"),
        ("hub.mode=subscribe", "hub.challenge=1", "hub.verify_token=%ff%fe"),
        ("hub.mode=subscribe", "hub.challenge=1", "hub.verify_token=%ed%a0%80"),
        ("hub.mode=subscribe", "hub.challenge=1", "hub.verify_token=%"),
        ("hub.mode=subscribe", "hub.challenge=1", f"HUB.VERIFY_TOKEN={TOKEN}"),
        ("hub.mode=subscribe", "hub.challenge=1", f"hub_verify_token={TOKEN}"),
        (f"hub.mode={MARKER}", f"hub.challenge={MARKER}", f"hub.verify_token={MARKER}"),
        (f"hub.challenge=<script>{MARKER}</script>",),
    ],
)
async def test_verification_request_without_the_token_is_403(street: Street, parameters: tuple[str, ...]) -> None:
    """The token is looked at first: without it nothing else of the request matters, and nothing of it comes back."""
    answer = await exchange(street.serving.port, get(*parameters))

    assert answer.status == 403


@pytest.mark.parametrize(
    ("challenge", "mode"),
    [
        ("", "subscribe"),
        ("9" * 65, "subscribe"),
        ("12a", "subscribe"),
        ("-1", "subscribe"),
        ("%2B1", "subscribe"),
        ("1.5", "subscribe"),
        ("0x10", "subscribe"),
        ("12%0A", "subscribe"),
        ("%0A12", "subscribe"),
        ("1%202", "subscribe"),
        ("12%00", "subscribe"),
        ("%D9%A1%D9%A2", "subscribe"),  # Arabic-Indic digits: str.isdigit would let them through
        ("%C2%B2", "subscribe"),
        (f"%3Cscript%3E{MARKER}%3C/script%3E", "subscribe"),
        (f"1%0D%0ASet-Cookie:%20{MARKER}=1", "subscribe"),
        ("1", ""),
        ("1", "Subscribe"),
        ("1", "unsubscribe"),
        ("1", MARKER),
    ],
)
async def test_verification_request_with_the_token_and_nonsense_is_400(
    street: Street, challenge: str, mode: str
) -> None:
    """What is not a challenge of 1 to 64 digits to a subscription is refused, and never given back."""
    answer = await exchange(street.serving.port, meta(challenge, mode=mode))

    assert answer.status == 400
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("missing", ["hub.mode", "hub.challenge"])
async def test_verification_request_with_a_parameter_missing_is_400(street: Street, missing: str) -> None:
    """A missing parameter gets an answer: Meta's own sample leaves the client hanging."""
    parameters = {"hub.mode": "subscribe", "hub.challenge": "1", "hub.verify_token": TOKEN}
    del parameters[missing]

    answer = await exchange(street.serving.port, get(*(f"{name}={value}" for name, value in parameters.items())))

    assert answer.status == 400


async def test_verification_request_with_repeated_parameters_echoes_one_challenge_or_none(street: Street) -> None:
    """Repeated parameters are neither joined nor a way around the token."""
    twice = await exchange(
        street.serving.port,
        get(*["hub.challenge=1", "hub.challenge=2"], f"hub.verify_token={TOKEN}", "hub.mode=subscribe"),
    )
    wrong = await exchange(
        street.serving.port, get("hub.challenge=1", "hub.mode=subscribe", "hub.verify_token=a", "hub.verify_token=b")
    )

    assert (twice.status, twice.body) in [(200, b"1"), (200, b"2")] or twice.status == 400
    assert wrong.status == 403


async def test_verification_request_in_bytes_that_are_no_url_is_refused(street: Street) -> None:
    """Raw UTF-8 and controls in the target are a client's error, not ours."""
    for strange in ("ü", "\x7f", "\x01", "\xff", "#fragment", "[", "%C3%28"):
        answer = await exchange(street.serving.port, get(f"hub.challenge={strange}", f"hub.verify_token={strange}"))
        assert answer.status in (400, 403, 404), strange


async def test_verification_requests_on_one_connection_are_answered_in_order(street: Street) -> None:
    """A connection that is kept alive gives each request its own answer."""
    async with Connection.open(street.serving.port) as connection:
        await connection.send(b"".join(meta(f"{number}") for number in range(40)))
        answers = [await connection.answer() for _ in range(40)]

    assert [answer.body for answer in answers] == [f"{number}".encode() for number in range(40)]
