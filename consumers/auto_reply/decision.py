"""Which events may be answered at all. Reads no clock and does no IO: the time comes as an argument."""

from datetime import datetime, timedelta

from consumers.decoding import Event

ANSWER_WINDOW = timedelta(hours=24)  # Meta: only within 24 h of the customer's last message (2026-11-22)


def reason_not_to_answer(event: Event, *, now: datetime, age_max: timedelta) -> str | None:
    """Why an event of the `messages` topic gets no answer, as a slug; None when it may get one.

    Args:
        event: A decoded event.
        now: The present, aware.
        age_max: How long ago the bridge may have received it.
    """
    value = event.value
    message = value.get("message")
    occurred_at: datetime | None = value["occurred_at"]
    account_id, customer_id = value["account_id"], value["customer_id"]
    # From what the event is to when it was: the first that applies is the one that is said.
    checks = (
        ("replayed", event.replay_id is not None),
        ("standby", value["origin"] == "standby" or event.webhook_field == "standby"),
        ("dashboard_test", value["origin"] != "messaging"),
        ("not_a_message", event.webhook_field != "messages" or message is None),
        ("unsent", bool(message and message["is_deleted"])),
        # Our own message, with or without Meta's flag: answering it would be answering ourselves.
        ("echo", bool(message and message["is_echo"]) or (account_id is not None and value["sender_id"] == account_id)),
        ("self", bool(message and message["is_self"])),
        ("no_customer", account_id is None or customer_id is None),
        ("received_too_long_ago", now - value["received_at"] > age_max),
        # Without Meta's time nobody can say that the window is still open.
        ("time_unknown", occurred_at is None),
        ("outside_answer_window", occurred_at is not None and now - occurred_at > ANSWER_WINDOW),
    )
    return next((reason for reason, applies in checks if applies), None)
