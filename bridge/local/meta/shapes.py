"""What Meta's items are made of: ids, texts, attachments and the objects under each key. Does no IO, reads no clock.

Every function takes the generator it draws from, so that equal seeds give equal values. Shapes follow Meta's pages
"Instagram Messaging webhooks" and "Webhooks: examples", and captures of real deliveries (all 2026-11); ids have the
lengths seen in captures. Hosts of URLs are reserved names (RFC 2606): nothing here can be fetched.
"""

import base64
from collections.abc import Callable
from random import Random
from typing import Any

Json = dict[str, Any]
"""A JSON object as Meta writes it."""

# What every mid in captures begins with: base64, in Meta's own spelling of it, of `ig_item:1:IGMessageID:`.
_MID_PREFIX = "aWdfZAG1faXRlbToxOklHTWVzc2FnZAUlEOj"

APP_ID = "1217981644879628"
"""The app whose webhooks these are; an echo of what the app sent carries it."""

INBOX_APP_ID = "1217981644879629"
"""The app that threads are handed to and back from: a help desk's inbox."""

TEXTS = (
    "Hello! Are you open on Sunday?",
    "hi, is the green one still available 😍",
    "Guten Tag, wie lange dauert die Lieferung nach Österreich?",
    "Größe 42 bitte 🙏",
    "Könnt ihr mir die Maße schicken? Danke schön!",
    "Où est ma commande ? Ça fait une semaine…",
    "¿Cuánto cuesta el envío a España?",
    "Ótimo, obrigada! ❤️",
    "Zażółć gęślą jaźń — to test, nie pytanie",
    "здравствуйте, есть скидки?",
    "こんにちは、海外発送はできますか。",
    "مرحبا، هل المنتج متوفر؟",
    "👍🏽",
    "👩‍👩‍👧‍👦 for the whole family please",
    "ok",
    'Can I change the address? It\'s "Flat 3\\B", sorry!\nThanks',
    "My order number is 10023-77 / ref A&B <3",
    "see https://shop.example/p/17?colour=grün",
)
ANSWERS = (
    "Hi! Yes, we are open from 10 to 16 o'clock.",
    "Gerne 😊 Die Lieferung dauert drei bis fünf Werktage.",
    "Thank you for your message! Could you send us your order number?",
    "It is in stock again from Friday on ✨",
    "Das tut uns leid! Wir prüfen das sofort für Sie.",
    "Merci ! On vous répond très vite.",
    "Sí, enviamos a toda España por 4,90 €.",
)
EMOJIS = {"love": "❤️", "haha": "😆", "wow": "😮", "sad": "😢", "angry": "😠", "like": "👍", "other": "🔥"}
BUTTONS = (
    ("Where is my order?", "ORDER_STATUS"),
    ("Öffnungszeiten", "OPENING_HOURS"),
    ("Talk to a human 🙋", "HUMAN"),
    ("Sizes & returns", "SIZES:RETURNS"),
)


def chance(rng: Random, share: float) -> bool:
    """True in that share of all cases."""
    return rng.random() < share


def digits(rng: Random, count: int) -> str:
    """A decimal id of exactly `count` digits, as a string: no leading zero."""
    return str(rng.randrange(10 ** (count - 1), 10**count))


def account_id(rng: Random) -> str:
    """An Instagram professional account's id: 17 digits."""
    return "178414" + digits(rng, 11)


def customer_id(rng: Random) -> str:
    """An Instagram-scoped id (IGSID): 15 to 17 digits."""
    return digits(rng, rng.randint(15, 17))


def mid(rng: Random, account: str, thread: str) -> str:
    """A message id as captures show it: 150 to 190 characters, base64 of account, thread and number."""
    number = f"{account}:{thread}:{digits(rng, rng.randint(30, 38))}"
    return f"{_MID_PREFIX}{base64.b64encode(number.encode()).decode().rstrip('=')}ZD"


def media_url(rng: Random) -> str:
    """The address of a photo, video or voice note; real ones expire, this one never existed."""
    return f"https://cdn.instagram.example/ig_messaging_cdn/?asset_id={digits(rng, 17)}&signature=AY{rng.getrandbits(160):x}"


_PAYLOAD_VALUES: dict[str, Callable[[Random], Any]] = {
    "url": media_url,
    "title": lambda rng: rng.choice(TEXTS),
    "id": lambda rng: digits(rng, 17),
    "sticker_id": lambda _: 369239263222822,
    "ig_post_media_id": lambda rng: digits(rng, 17),
    # Number or string: both are seen.
    "reel_video_id": lambda rng: rng.choice((str, int))(digits(rng, 17)),
    "story_media_id": lambda rng: digits(rng, 17),
    "generic": lambda rng: {
        "elements": [
            {
                "title": "Neu: Sommerkleid",
                "subtitle": "49,90 €",
                "image_url": media_url(rng),
                "buttons": [{"type": "postback", "title": title, "payload": payload} for title, payload in BUTTONS[:2]],
            },
        ],
    },
    "product": lambda rng: {"elements": [{"id": digits(rng, 16), "title": "Kleid „Äther“", "price": 49.9}]},
}
# Attachment type → weight, and the payload's keys; None is a type that comes without any payload.
_ATTACHMENTS: dict[str, tuple[int, tuple[str, ...] | None]] = {
    "image": (40, ("url",)),
    "video": (12, ("url",)),
    "audio": (10, ("url",)),
    "file": (2, ("url",)),
    "share": (6, ("url", "title")),
    "story_mention": (8, ("url",)),
    "ig_reel": (5, ("reel_video_id", "title", "url")),
    "reel": (2, ("reel_video_id", "title", "url")),
    "ig_post": (7, ("ig_post_media_id", "title", "url")),
    "ig_story": (2, ("story_media_id", "url")),
    "story": (1, ("id", "url")),
    "media": (1, ("id", "url")),
    "template": (3, ("product",)),
    "like_heart": (3, None),
    "ephemeral": (2, None),
    "unsupported_type": (1, None),
}
_ATTACHMENT_TYPES = tuple(_ATTACHMENTS)
_ATTACHMENT_WEIGHTS = tuple(weight for weight, _ in _ATTACHMENTS.values())


def attachment(rng: Random, type_name: str | None = None) -> Json:
    """One attachment of the type named, else of a type drawn by how often each is seen."""
    name = type_name or rng.choices(_ATTACHMENT_TYPES, _ATTACHMENT_WEIGHTS)[0]
    keys = _ATTACHMENTS[name][1]
    if keys is None:
        return {"type": name}
    return {"type": name, "payload": {key: _PAYLOAD_VALUES[key](rng) for key in keys}}


def template(rng: Random) -> Json:
    """A template as an echo shows it: a card with buttons, or, as often seen, nothing inside."""
    return {"type": "template", "payload": {"generic": _PAYLOAD_VALUES["generic"](rng)} if chance(rng, 0.5) else {}}


def ad_referral(rng: Random) -> Json:
    """The referral inside the first message after a click on an ad; `ad_id` is a number or a string."""
    context = {"ad_title": "Frühlingsangebot 🌷", "photo_url": media_url(rng), "video_url": media_url(rng)}
    ad_id = rng.choice((int, int, str))(digits(rng, 13))
    return {
        "ref": "spring-2026",
        "ad_id": ad_id,
        "source": "ADS",
        "type": "OPEN_THREAD",
        "ads_context_data": context,
    }


def product_referral(rng: Random) -> Json:
    """The referral inside a message that was written from a product's page."""
    return {"product": {"id": digits(rng, 16)}}


def link_referral(rng: Random) -> Json:
    """The referral of an ig.me link that was opened in an existing conversation."""
    return {"ref": f"flyer-{rng.randint(1, 40)}", "source": "IGME-SOURCE-LINK", "type": "OPEN_THREAD"}


def story_reply(rng: Random) -> Json:
    """What `reply_to` holds when a customer answers a story."""
    story = {"url": media_url(rng), "id": digits(rng, 17)}
    if chance(rng, 0.2):
        story["link_sticker_url"] = "https://shop.example/sale"
    return {"story": story}


def reaction(rng: Random, mid_of_message: str) -> Json:
    """A `react`: the reaction's name and the emoji."""
    name = rng.choice(tuple(EMOJIS))
    return {"mid": mid_of_message, "action": "react", "reaction": name, "emoji": EMOJIS[name]}


def handover(rng: Random, *, back: bool) -> Json:
    """One key and its object: a thread passed to the inbox, or (`back`) taken from it, with the rarer two between."""
    if back:
        return {"take_thread_control": {"previous_owner_app_id": INBOX_APP_ID, "metadata": "solved"}}
    kind = rng.choices(("pass_thread_control", "request_thread_control", "app_roles"), (6, 2, 1))[0]
    if kind == "pass_thread_control":
        return {kind: {"previous_owner_app_id": APP_ID, "new_owner_app_id": INBOX_APP_ID, "metadata": "für Menschen"}}
    if kind == "request_thread_control":
        return {kind: {"requested_owner_app_id": INBOX_APP_ID, "metadata": "please"}}
    return {kind: {APP_ID: ["primary_receiver"], INBOX_APP_ID: ["secondary_receiver"]}}


def optin(rng: Random) -> Json:
    """A consent to further messages; Meta documents it for Messenger, its shape on Instagram is not confirmed."""
    return {
        "type": "notification_messages",
        "title": "Neuigkeiten",
        "payload": "NEWS",
        "notification_messages_token": digits(rng, 19),
        "notification_messages_frequency": "WEEKLY",
    }


def comment_value(rng: Random, customer: str, *, live: bool) -> Json:
    """The value of a comments or live_comments change."""
    value: Json = {
        "from": {"id": customer, "username": f"kundin.{customer[-4:]}"},
        "media": {"id": digits(rng, 17), "media_product_type": "LIVE" if live else rng.choice(("FEED", "REELS", "AD"))},
        "id": digits(rng, 17),
        "text": rng.choice(TEXTS),
    }
    if not live and chance(rng, 0.3):
        value["parent_id"] = digits(rng, 17)
    return value


def mention_value(rng: Random) -> Json:
    """The value of a mentions change: in a comment, or (without `comment_id`) in a caption."""
    value = {"media_id": digits(rng, 17)}
    if chance(rng, 0.7):
        value["comment_id"] = digits(rng, 17)
    return value


# Below this Meta hides a count of story_insights and sends -1.
_COUNT_SHOWN_MIN = 5


def story_insights_value(rng: Random) -> Json:
    """The value of a story_insights change; small counts arrive as -1."""
    counts = {
        name: rng.randint(0, 60) for name in ("impressions", "reach", "taps_forward", "taps_back", "exits", "replies")
    }
    return {"media_id": digits(rng, 17)} | {
        name: count if count >= _COUNT_SHOWN_MIN else -1 for name, count in counts.items()
    }
