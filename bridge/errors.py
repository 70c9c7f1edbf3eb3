"""What can go wrong between Meta and Kafka, and what each case decides.

BridgeError
├── Refused                 the HTTP room answers it; nothing of the delivery is published
│   ├── BadVerificationRequest, WrongVerifyToken
│   ├── SignatureMissing, SignatureRepeated, SignatureMalformed, SignatureMismatch
│   ├── BadRequest, NotFound, MethodNotAllowed, ExpectationFailed
│   ├── BodyTooLarge, BodyEncoded, RequestTooSlow
│   └── Overloaded, NotAcknowledged, SpoolFull, SpoolFailed
├── Unreadable              an authentic delivery that becomes a dead letter: NotUtf8, NotJson, NestedTooDeep,
│                           WrongShape, UnsupportedObject
└── Misconfigured           the process must not start, or cannot go on: one line says what to mend

Adapters add what only their callers hear: RegistryUnreachable, SchemaRefused (registry), Undecodable (reader).

A class carries its decision: ``reason`` is the slug that metrics, logs and dead letters show, ``http_status`` the answer,
``retry_after_s`` whether and when the sender should try again. No message ever holds a body, a secret, a token or a MAC.
"""

from __future__ import annotations

from typing import ClassVar


class BridgeError(Exception):
    """The root: everything this project raises on purpose."""

    reason: ClassVar[str] = "bridge_error"


class Refused(BridgeError):
    """A request that is answered with ``http_status`` and leaves nothing behind."""

    reason = "refused"
    http_status: ClassVar[int] = 400
    retry_after_s: ClassVar[int | None] = None
    """Seconds for the Retry-After header; None where a retry would bring the same answer."""


class BadVerificationRequest(Refused):
    """hub.mode or hub.challenge of a verification request is missing or not what Meta sends."""

    reason = "bad_verification_request"


class WrongVerifyToken(Refused):
    """hub.verify_token is missing or not ours."""

    reason = "wrong_verify_token"
    http_status = 403


class SignatureMissing(Refused):
    """No X-Hub-Signature-256 header."""

    reason = "signature_missing"
    http_status = 401


class SignatureRepeated(Refused):
    """More than one X-Hub-Signature-256 header: a proxy and we might read different ones."""

    reason = "signature_repeated"
    http_status = 401


class SignatureMalformed(Refused):
    """X-Hub-Signature-256 is not ``sha256=`` and 64 hex digits."""

    reason = "signature_malformed"
    http_status = 401


class SignatureMismatch(Refused):
    """No live app secret gives this signature over these bytes."""

    reason = "signature_mismatch"
    http_status = 401


class BodyTooLarge(Refused):
    """The body, declared or read, is over BRIDGE_BODY_BYTES_MAX."""

    reason = "body_too_large"
    http_status = 413


class RequestTooSlow(Refused):
    """The request did not arrive in time."""

    reason = "request_too_slow"
    http_status = 408


class BodyEncoded(Refused):
    """A Content-Encoding: Meta signs and sends plain bytes, and a compressed one could unfold to anything."""

    reason = "body_encoded"
    http_status = 415


class BadRequest(Refused):
    """Not HTTP as RFC 9112 has it, or a protocol that is not spoken here."""

    reason = "bad_request"


class NotFound(Refused):
    """Another path than the one there is."""

    reason = "not_found"
    http_status = 404


class MethodNotAllowed(Refused):
    """Another method than GET and POST."""

    reason = "method_not_allowed"
    http_status = 405


class ExpectationFailed(Refused):
    """An Expect header that is not 100-continue."""

    reason = "expectation_failed"
    http_status = 417


class Overloaded(Refused):
    """A bound on deliveries in flight or on bytes held is reached; said at once, instead of a growing queue."""

    reason = "overloaded"
    http_status = 503
    retry_after_s = 1


class NotAcknowledged(Refused):
    """Kafka did not acknowledge every record of the delivery within its deadline."""

    reason = "not_acknowledged"
    http_status = 503
    retry_after_s = 5


class SpoolFull(Refused):
    """Kafka is away and the spool is at its bound, or its disk nearly is."""

    reason = "spool_full"
    http_status = 503
    retry_after_s = 30


class SpoolFailed(Refused):
    """Kafka is away and the spool's disk refused to store the delivery."""

    reason = "spool_failed"
    http_status = 503
    retry_after_s = 5


class Unreadable(BridgeError):
    """An authentic delivery we cannot read: published to dead_letter and answered 200, a retry would bring the same."""

    reason = "unreadable"


class NotUtf8(Unreadable):
    """Bytes that are not UTF-8 (RFC 8259 section 8.1)."""

    reason = "not_utf8"


class NotJson(Unreadable):
    """Bytes that are not JSON (RFC 8259); NaN and Infinity are not."""

    reason = "not_json"


class NestedTooDeep(Unreadable):
    """Objects and arrays nested deeper than the limit."""

    reason = "nested_too_deep"


class WrongShape(Unreadable):
    """JSON, but not a notification: neither object nor array, or an ``entry`` that is no array."""

    reason = "wrong_shape"


class UnsupportedObject(Unreadable):
    """A notification whose ``object`` is missing or not ``instagram``."""

    reason = "unsupported_object"


class Misconfigured(BridgeError):
    """A setting, topic, schema or permission that a person must mend. The message is one line: what, and how."""

    reason = "misconfigured"
