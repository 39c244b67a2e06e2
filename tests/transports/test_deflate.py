"""permessage-deflate at the edge: every kind of offer."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from hubbub.errors import Refused
from hubbub.transports.deflate import negotiate

ANSWER = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    "server_max_window_bits=12"
)


def answer_to(*offers: str) -> str | None:
    headers = Headers()
    for offer in offers:
        headers["Sec-WebSocket-Extensions"] = offer
    return negotiate(headers)


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", ANSWER),
        ("permessage-deflate; client_max_window_bits", ANSWER),
        ("permessage-deflate; client_max_window_bits=9", f"{ANSWER}; client_max_window_bits=9"),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", ANSWER),
        ("permessage-deflate; server_max_window_bits=15", ANSWER),
        ("permessage-deflate; server_max_window_bits=12", ANSWER),
        ("permessage-deflate; server_max_window_bits=11", None),
        ("permessage-deflate; server_max_window_bits=9", None),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", ANSWER),
        ("permessage-deflate, permessage-deflate; client_max_window_bits=10", ANSWER),
        ("x-webkit-deflate-frame", None),
        ("permessage-bzip2; level=9, permessage-deflate", ANSWER),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=012", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=12", None),
        ("permessage-deflate; unknown", None),
    ],
)
def test_an_offer_is_met_with_the_shared_form_or_declined(offer: str, answer: str | None) -> None:
    got = answer_to(offer)
    assert got == answer or set((got or "").split("; ")) == set((answer or "").split("; "))


def test_offers_in_several_headers_are_one_list() -> None:
    assert answer_to("permessage-deflate; server_max_window_bits=9", "permessage-deflate") == ANSWER
    assert answer_to() is None


@pytest.mark.parametrize("header", ["permessage-deflate;", "=", "permessage-deflate; a=b c", ","])
def test_a_header_without_grammar_is_refused(header: str) -> None:
    with pytest.raises(Refused) as refused:
        answer_to(header)
    assert (refused.value.status, refused.value.code) == (400, "bad_request")


@pytest.mark.parametrize("bits", [None, 12, 15])
def test_the_answer_satisfies_a_client(bits: int | None) -> None:
    client = ClientPerMessageDeflateFactory(server_max_window_bits=bits)
    offer = "; ".join(
        name if value is None else f"{name}={value}"
        for name, value in [("permessage-deflate", None), *client.get_request_params()]
    )
    answer = answer_to(offer)
    assert answer is not None
    params = [
        (name, value or None) for name, _, value in (p.partition("=") for p in answer.split("; "))
    ]
    extension = client.process_response_params(params[1:], [])
    assert extension.remote_no_context_takeover
    assert extension.local_no_context_takeover
    assert extension.remote_max_window_bits == 12
