"""What an answer of Graph API means for a message: sent, certainly not sent, or nobody knows. From Meta's table of errors."""

from __future__ import annotations

import json

import pytest

from consumers.auto_reply.graph import Kind, meaning, usage_pause_s


def error(code: int, subcode: int | None = None, **more: object) -> bytes:
    """An error as Graph API writes it."""
    found = {"message": "text", "type": "IGApiException", "code": code, "fbtrace_id": "A"} | more
    return json.dumps({"error": found | ({} if subcode is None else {"error_subcode": subcode})}).encode()


@pytest.mark.parametrize(
    ("code", "subcode", "kind"),
    [
        (10, 2534022, "refused"),
        (10, 2018278, "refused"),
        (10, 2018300, "refused"),
        (100, 2534014, "refused"),
        (551, None, "refused"),
        (551, 1545041, "refused"),
        (190, None, "stop"),
        (190, 463, "stop"),
        (200, None, "stop"),
        (10, 1893063, "stop"),
        (100, 2534029, "stop"),
        (4, None, "limited"),
        (17, None, "limited"),
        (32, None, "limited"),
        (613, 1996, "limited"),
        (80002, None, "limited"),
        (1, None, "lost"),
        (2, None, "lost"),
        (100, None, "refused"),
        (10, None, "refused"),
    ],
)
def test_error_of_the_table_means_what_the_table_says(code: int, subcode: int | None, kind: Kind) -> None:
    """Each code of Meta's table, with and without its subcode; a message is only repeated where it was certainly not sent."""
    answer = meaning(400, error(code, subcode), {})
    assert answer.kind == kind
    assert answer.error == (f"{code}" if subcode is None else f"{code}/{subcode}")


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (200, b'{"recipient_id":"1","message_id":"m"}', "sent"),
        (200, b'{"recipient_id":"1"}', "sent"),
        (200, b"<html>", "lost"),
        (200, b"", "lost"),
        (500, b"<html>", "lost"),
        (503, b"", "lost"),
        (400, error(99999, is_transient=True), "lost"),
        (400, error(99999), "refused"),
        (404, b"<html>", "refused"),
        (429, b"", "limited"),
        (400, b'{"error":"text"}', "refused"),
        (400, b'{"error":{"code":"190"}}', "stop"),
        (302, b"", "refused"),
    ],
)
def test_answer_that_is_no_error_of_the_table_is_lost_when_it_may_have_been_sent(
    status: int, content: bytes, kind: Kind
) -> None:
    """What does not certainly say no may have been sent; only HTTP's own 4xx and 3xx say no."""
    assert meaning(status, content, {}).kind == kind


def test_message_id_of_an_answer_is_kept() -> None:
    """The echo's mid equals it."""
    assert meaning(200, b'{"recipient_id":"1","message_id":"aWdf"}', {}).message_id == "aWdf"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-app-usage": '{"call_count":28,"total_time":25,"total_cputime":25}'}, None),
        ({"x-app-usage": '{"call_count":99,"total_time":25,"total_cputime":25}'}, 5.0),
        (
            {
                "x-business-use-case-usage": '{"1":[{"type":"messenger","call_count":1,"estimated_time_to_regain_access":2}]}'
            },
            120.0,
        ),
        ({"x-business-use-case-usage": '{"1":[{"call_count":100,"estimated_time_to_regain_access":0}]}'}, 5.0),
        ({"x-business-use-case-usage": "no JSON", "x-app-usage": "[]"}, None),
        ({"x-business-use-case-usage": '{"1":{"call_count":100}}'}, None),
    ],
)
def test_usage_headers_ask_for_a_pause_when_a_limit_is_near(headers: dict[str, str], seconds: float | None) -> None:
    """Minutes where Graph API names them, a short pause near the limit, none otherwise and none for what is not readable."""
    assert usage_pause_s(headers) == seconds
