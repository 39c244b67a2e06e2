"""Origins: what a setting may name, how browsers write it, and what fits what."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import SettingsError
from hubbub.origins import Origin, read_host, read_origin, read_pattern
from hubbub.settings import Settings


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("https://example.com:00443", "https://example.com"),
        ("https://example.com:", "https://example.com"),
        ("  HTTPS://Example.COM// ", "https://example.com"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("https://*.bücher.example:8443", "https://*.xn--bcher-kva.example:8443"),
        # What Chromium makes of these names.
        ("http://straße.de", "http://xn--strae-oqa.de"),
        ("http://ΣΑΣ.gr", "http://xn--mxa9ab.gr"),
        ("http://İx.de", "http://xn--ix-rub.de"),
        ("http://\N{LATIN SMALL LIGATURE FI}.de", "http://fi.de"),
        ("http://日本。jp", "http://xn--wgv71a.jp"),
        ("http://نامه\u200cای.com", "http://xn--mgba3gch31f060k.com"),
        ("http://[0:0:0:0:0:0:0:1]:8000", "http://[::1]:8000"),
        ("http://[2001:DB8:0::1]", "http://[2001:db8::1]"),
        ("http://[::FFFF:1.2.3.4]:80", "http://[::ffff:102:304]"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:*", "http://localhost:*"),
        ("https://*.example.com:*", "https://*.example.com:*"),
        ("https://a_b.example.", "https://a_b.example."),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("app://.", "app://."),
        ("file://", "file://"),
        ("FILE:///", "file://"),
        ("NULL", "null"),
        (" Same-Origin ", "same-origin"),
        (" * ", "*"),
    ],
)
def test_fault_15_an_origin_is_written_as_browsers_send_it(text: str, written: str) -> None:
    assert Settings(origins=(text,)).origins == (written,)
    assert Settings.load({"HUBBUB_ORIGINS": text}).origins == (written,)
    assert str(read_pattern(written)) == written, "and reading it again changes nothing"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wss://example.com", "write https://example.com"),
        ("ws://*.example.com:8000", "write http://*.example.com:8000"),
        ("https://example.com:0", "has no port from 1 to 65535"),
        ("https://example.com:65536", "has no port from 1 to 65535"),
        ("https://example.com:https", "has no port from 1 to 65535"),
        ("https://example.com:-1", "has no port from 1 to 65535"),
        ("http://localhost:80*", "has no port from 1 to 65535"),
        ("http://localhost:5173 https://a.example", "is several origins: write a list"),
        ("example.com", "has no scheme: write https://example.com"),
        ("localhost:3000", "has no scheme: write http://localhost:3000"),
        ("//example.com/x", "has no scheme: write https://example.com"),
        ("", "has no scheme: write https://example.com"),
        ("*:8000", "has no scheme"),
        ("1://example.com", "has no scheme such as http or https"),
        ("https://example.com/chat", "write https://example.com"),
        ("https://example.com?x", "write https://example.com"),
        ("https://example.com#x", "write https://example.com"),
        ("https://ann@example.com", "must not hold a user's name"),
        ("https://a.example,https://b.example", "write a list of them"),
        ("https://a.example https://b.example", "write a list of them, as text with commas"),
        ("https://a.example; https://b.example", "write a list of them"),
        ("https://example .com", "has no host"),
        ("https://exa\tmple.com", "has no host"),
        ("https://b\u00fccher\u2028.com", "has a character that no host can have"),
        ("https://", "has no host"),
        ("https://a..b", "has no host"),
        (f"https://{'a' * 64}.com", "has no host"),
        (f"https://{'a.' * 127}com", "has no host"),
        ("https://*", "write '*' alone"),
        ("https://a.*.com", "a * stands only for all subdomains"),
        ("https://*a.com", "a * stands only for all subdomains"),
        ("http://127.1", "IPv4"),
        ("http://127.0.0.01", "IPv4"),
        ("http://0x7f.0.0.0x1", "IPv4"),
        ("http://*.127.0.0.1", "has no subdomains"),
        ("http://::1", "without brackets"),
        ("http://[::1", "does not end with ]"),
        ("http://[::1]8000", "does not end with ]"),
        ("http://[::g]", "no IPv6 address in [::g]"),
        ("http://[fe80::1%eth0]", "a zone"),
        ("file:///home/ann/page.html", "write file://"),
    ],
)
def test_fault_15_an_origin_that_no_header_can_match_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(origins=(text,))
    assert caught.value.field == "origins"
    assert "must be origins such as https://example.com" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "origin", "fits"),
    [
        ("http://localhost:*", "http://localhost", True),
        ("http://localhost:*", "http://localhost:3000", True),
        ("http://localhost:*", "https://localhost:3000", False),
        ("http://localhost:*", "http://localhost.evil.example:3000", False),
        ("https://example.com:443", "https://example.com", True),
        ("https://example.com", "https://example.com:443", True),
        ("https://example.com", "https://example.com:80", False),
        ("https://bücher.example", "https://xn--bcher-kva.example", True),
        ("http://[0:0::1]:80", "http://[::1]", True),
        ("https://*.example.com:*", "https://a.b.example.com:8443", True),
        ("https://*.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com:*", "https://example.com:8443", False),
        ("chrome-extension://abc", "chrome-extension://abc", True),
        ("chrome-extension://abc", "chrome-extension://abd", False),
        ("app://.", "app://.", True),
        ("app://.", "app://a", False),
        ("file://", "file://", True),
    ],
)
def test_fault_15_what_fits(pattern: str, origin: str, fits: bool) -> None:
    read, theirs = read_pattern(pattern), read_origin(origin)
    assert isinstance(read, Origin)
    assert theirs is not None
    assert read.covers(theirs) is fits


@pytest.mark.parametrize(
    "text", ["null", "", "*", "https://*.example.com", "http://a:*", "a", "\xff"]
)
def test_a_header_that_is_no_origin_is_none(text: str) -> None:
    assert read_origin(text) is None


@pytest.mark.parametrize(
    ("host", "scheme", "read"),
    [
        ("example.com", "https", Origin("https", "example.com")),
        ("EXAMPLE.com:443", "https", Origin("https", "example.com")),
        ("example.com:443", "http", Origin("http", "example.com", 443)),
        ("[0:0::1]:8000", "http", Origin("http", "[::1]", 8000)),
        ("", "http", None),
        ("a/b", "http", None),
        ("ann@a", "http", None),
    ],
)
def test_a_host_header_is_read_as_the_page_s_origin(
    host: str, scheme: str, read: Origin | None
) -> None:
    assert read_host(host, scheme) == read


@given(st.text() | st.from_regex(r"(https?|file|x-y)://[\[\]*.:a-z0-9/ü]*", fullmatch=True))
def test_any_text_is_read_or_refused_and_read_again_the_same(text: str) -> None:
    with contextlib.suppress(ValueError):
        written = str(read_pattern(text))
        assert str(read_pattern(written)) == written
        assert written.isascii()
