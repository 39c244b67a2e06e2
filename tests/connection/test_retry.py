"""The client's rules: pure, so nothing here waits and nothing is connected."""

from __future__ import annotations

import email.utils
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosedError,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    NegotiationError,
    ProxyError,
)
from websockets.frames import Close as CloseFrame
from websockets.http11 import Response

from hubbub.connection.retry import (
    CAUSES,
    GIVES_UP_AFTER,
    GIVES_UP_AFTER_WAS_OPEN,
    MAX_RETRY_AFTER_S,
    STABLE_AFTER_S,
    Backoff,
    BadRedirect,
    Cause,
    Follows,
    FunctionFailed,
    FunctionWrong,
    OfflineQueue,
    Patience,
    Target,
    closed,
    ending_of,
    may_be_http,
    read_retry_after_s,
    read_status,
    redirected,
    refused,
    websocket_url,
    without_secrets,
)
from hubbub.errors import CLOSE_CODES, Disconnected
from hubbub.frame import encode
from hubbub.model import Close


def response(status: int, body: bytes = b"", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, "Some Phrase", Headers(named), body)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def unverified(code: int) -> Exception:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    return error


SEEN = [
    FunctionFailed("x"),
    FunctionWrong("x"),
    caused(InvalidMessage("x"), EOFError()),
    InvalidProxy("ftp://x", "x"),
    caused(InvalidProxyMessage("x"), ValueError()),
    ProxyError("x"),
    caused(InvalidMessage("x"), ValueError()),
    NegotiationError("x"),
    unverified(10),
    unverified(18),
    ssl.SSLEOFError("x"),
    ssl.SSLError("x"),
    TimeoutError("x"),
    AssertionError("x"),
]


class TestPatience:
    def test_a_few_in_a_row_are_enough(self) -> None:
        few, other = refused(response(404)), refused(response(503))
        patience = Patience()
        for _ in range(3):
            tries = [patience.goes_on(few) for _ in range(GIVES_UP_AFTER - 1)]
            assert all(tries)
            assert patience.goes_on(other)
        assert [patience.goes_on(few) for _ in range(GIVES_UP_AFTER)][-1] is False

    def test_what_worked_before_is_tried_longer(self) -> None:
        patience = Patience()
        patience.opened()
        tries = [patience.goes_on(refused(response(404))) for _ in range(GIVES_UP_AFTER_WAS_OPEN)]
        assert tries == [True] * (GIVES_UP_AFTER_WAS_OPEN - 1) + [False]

    def test_a_refusal_for_good_is_the_end_at_once(self) -> None:
        patience = Patience()
        patience.opened()
        assert not patience.goes_on(refused(response(401)))


class TestRedirects:
    @pytest.mark.parametrize(
        ("url", "location", "expected", "keeps"),
        [
            ("ws://h/ws", "/x?y#z", "ws://h/x?y", True),
            ("ws://h/a/ws", "x", "ws://h/a/x", True),
            ("ws://h/ws", "http://h:80/x", "ws://h:80/x", True),
            ("ws://h/ws", "https://h/ws", "wss://h/ws", True),
            ("ws://H/ws", "//h/x", "ws://h/x", True),
            ("ws://u:p@h/ws", "http://h/x", "ws://u:p@h/x", True),
            ("ws://h:8080/ws", "https://h/ws", "wss://h/ws", False),
            ("ws://h/ws", "https://h:8443/ws", "wss://h:8443/ws", False),
            ("wss://h/ws", "https://www.h/ws", "wss://www.h/ws", False),
            ("ws://u:p@h/ws", "http://other/x", "ws://other/x", False),
            ("ws://h/ws", "http://h:81/x", "ws://h:81/x", False),
        ],
    )
    def test_where_it_leads(self, url: str, location: str, expected: str, keeps: bool) -> None:
        headers = {"X-Token": "abc"}
        target = redirected(Target(url, headers), response(302, Location=location))
        assert target == (expected, headers if keeps else {})

    @pytest.mark.parametrize("location", ["http://h/", "ws://h/", "ftp://h/", "https://"])
    def test_where_it_must_not_lead(self, location: str) -> None:
        with pytest.raises(BadRedirect) as caught:
            redirected(Target("wss://h/", {}), response(302, Location=location))
        assert ending_of(caught.value).close.code == 302

    def test_what_is_no_redirect(self) -> None:
        target = Target("ws://h/", {})
        assert redirected(target, response(302)) is None
        assert redirected(target, response(304, Location="/x")) is None
        assert redirected(target, response(503, Location="/x")) is None


class TestStatusLine:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"HTTP/1.0 503 Service Unavailable\r\n", (503, "Service Unavailable")),
            (b"HTTP/1.1 401\r\n", (401, "")),
            (b"HTTP/1.1 401 \xe9\n", (401, "\xe9")),
            (b"HTTP/1.1 401", (0, "")),
            (b"HTTP/1.1 999 No\r\n", (0, "")),
            (b"SSH-2.0-x\r\n", (0, "")),
        ],
    )
    def test_status_and_phrase(self, line: bytes, expected: tuple[int, str]) -> None:
        assert read_status(line) == expected

    def test_what_may_become_http(self) -> None:
        assert all(map(may_be_http, (b"", b"HT", b"HTTP/1.1 2", b"HTTP/1.0")))
        assert not any(map(may_be_http, (b"SSH-", b"HTTP/2 200", b"\x15\x03")))


class TestBackoff:
    def test_the_ceiling_doubles_up_to_the_greatest_delay(self) -> None:
        backoff = Backoff(rand=lambda: 1.0)
        assert [backoff.next_delay() for _ in range(8)] == [1, 2, 4, 8, 16, 20, 20, 20]

    def test_no_delay_is_below_the_least(self) -> None:
        backoff = Backoff(rand=lambda: 0.0)
        assert [backoff.next_delay() for _ in range(5)] == [0.5] * 5

    @given(
        least=st.floats(0, 10),
        span=st.floats(0, 100),
        rand=st.floats(0, 1, exclude_max=True),
        times=st.integers(1, 3000),
    )
    def test_every_delay_is_within_the_bounds(
        self, least: float, span: float, rand: float, times: int
    ) -> None:
        backoff = Backoff(least, least + span, rand=lambda: rand)
        backoff.attempts = times - 1
        assert least <= backoff.next_delay() <= least + span

    def test_the_delays_of_many_clients_spread(self) -> None:
        delays = [Backoff().next_delay() for _ in range(200)]
        assert len(set(delays)) == 200
        assert min(delays) < 0.6 < 0.9 < max(delays)

    def test_no_least_delay_still_spreads(self) -> None:
        assert Backoff(0.0, 20.0, rand=lambda: 0.5).next_delay() == 0.5

    def test_s12_a_fixed_delay(self) -> None:
        backoff = Backoff(fixed_delay_s=3.0)
        assert [backoff.next_delay() for _ in range(3)] == [3.0, 3.0, 3.0]

    def test_retry_after_is_a_lower_bound_that_keeps_the_jitter(self) -> None:
        assert Backoff(rand=lambda: 0.0).next_delay(7.0) == 7.5
        assert Backoff(rand=lambda: 1.0).next_delay(7.0) == 8.0
        assert Backoff(fixed_delay_s=3.0).next_delay(7.0) == 10.0

    def test_only_a_connection_that_stood_makes_the_delays_short_again(self) -> None:
        backoff = Backoff(rand=lambda: 1.0)
        backoff.next_delay()
        backoff.next_delay()
        backoff.stood(STABLE_AFTER_S - 0.01)
        assert backoff.next_delay() == 4.0
        backoff.stood(STABLE_AFTER_S)
        assert backoff.next_delay() == 1.0

    @pytest.mark.parametrize(
        ("least", "greatest", "fixed"),
        [(-1.0, 20.0, None), (5.0, 1.0, None), (0.5, float("inf"), None), (0.5, 20.0, -1.0)],
    )
    def test_impossible_delays_are_refused(
        self, least: float, greatest: float, fixed: float | None
    ) -> None:
        with pytest.raises(ValueError, match="seconds"):
            Backoff(least, greatest, fixed)


class TestOfflineQueue:
    def test_the_oldest_goes_when_there_are_too_many(self) -> None:
        queue = OfflineQueue(2, 1000)
        dropped = 0
        for text in "abcd":
            queue.append(encode(text))
            dropped += queue.trim()
        assert dropped == 2
        assert [queue.take().text for _ in range(len(queue))] == ["c", "d"]

    def test_the_oldest_goes_when_they_are_too_large(self) -> None:
        queue = OfflineQueue(100, 10)
        for text in ("aaaa", "bbbb", "cccc"):
            queue.append(encode(text))
            queue.trim()
        assert [queue.take().text for _ in range(len(queue))] == ["bbbb", "cccc"]

    def test_a_message_that_never_fits_goes_alone(self) -> None:
        queue = OfflineQueue(100, 10)
        queue.append(encode("small"))
        queue.append(encode("x" * 11))
        assert queue.trim() == 1
        assert queue.take().text == "small"

    def test_no_room_at_all(self) -> None:
        queue = OfflineQueue(0, 1000)
        queue.append(encode("a"))
        assert queue.trim() == 1
        assert len(queue) == 0

    def test_clear_counts(self) -> None:
        queue = OfflineQueue(5, 4)
        queue.append(encode("abcd"))
        assert queue.clear() == 1
        queue.append(encode("efgh"))
        assert queue.trim() == 0

    def test_negative_bounds_are_refused(self) -> None:
        with pytest.raises(ValueError, match="max_queue=-1"):
            OfflineQueue(-1, 0)

    @given(st.lists(st.binary(max_size=12), max_size=40), st.integers(0, 8), st.integers(0, 30))
    def test_it_is_bounded_and_nothing_is_lost_uncounted(
        self, payloads: list[bytes], most: int, size: int
    ) -> None:
        queue = OfflineQueue(most, size)
        dropped = 0
        for payload in payloads:
            queue.append(encode(payload))
            dropped += queue.trim()
            assert len(queue) <= most
        left = [queue.take().payload for _ in range(len(queue))]
        assert sum(map(len, left)) <= size
        assert len(left) + dropped == len(payloads)


class TestEndings:
    @pytest.mark.parametrize("row", CLOSE_CODES, ids=lambda row: str(row.code))
    def test_the_table_decides_who_comes_back(self, row: tuple[int, str, bool, str]) -> None:
        error = ConnectionClosedError(CloseFrame(row[0], "why"), None)
        follows = Follows.ANOTHER if row[2] else Follows.NONE
        assert closed(error) == (Close(row[0], "why", by_server=True), follows, 0.0, error)

    def test_the_first_close_of_two_counts(self) -> None:
        server, client = CloseFrame(1012, "restart"), CloseFrame(1000, "bye")
        assert closed(ConnectionClosedError(server, client, True)).close == (1012, "restart", True)
        assert closed(ConnectionClosedError(server, client, False)).close == (1000, "bye", False)

    def test_a_broken_connection_is_1006(self) -> None:
        ending = closed(ConnectionClosedError(None, None))
        assert (ending.close.code, ending.follows) == (1006, Follows.ANOTHER)

    def test_a_failed_attempt_is_repeated(self) -> None:
        error = ConnectionRefusedError(111, "refused")
        close = Close(1006, "cannot connect: [Errno 111] refused")
        assert ending_of(error) == (close, Follows.ANOTHER, 0.0, error)

    def test_an_error_without_words_shows_its_kind(self) -> None:
        assert ending_of(ConnectionResetError()).close.reason.endswith(": ConnectionResetError")

    def test_a_reason_is_one_line(self) -> None:
        reason = ending_of(OSError("a\nb\x1b[31m" + "x" * 999)).close.reason
        assert reason.isprintable()
        assert len(reason) < 300

    def test_the_program_gets_one_kind_of_error_with_its_cause(self) -> None:
        cause = ZeroDivisionError("x")
        error = ending_of(cause).as_error()
        assert isinstance(error, Disconnected)
        assert error.__cause__ is cause
        own = Disconnected(4500, "mine")
        assert ending_of(own).as_error() is own

    @pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
    def test_every_cause_is_met_by_some_error(self, cause: Cause) -> None:
        assert [error for error in SEEN if next(c for c in CAUSES if c.shows(error)) is cause]

    @pytest.mark.parametrize("status", [401, 403])
    def test_401_and_403_are_for_good_with_the_sentence_of_the_body(self, status: int) -> None:
        ending = refused(response(status, b'{"error": "No such token", "code": "x"}'))
        assert ending[:2] == (Close(status, "No such token", by_server=True), Follows.NONE)

    @pytest.mark.parametrize("status", [408, 409, 421, 423, 425, 429, 500, 503])
    def test_what_is_temporary_is_repeated(self, status: int) -> None:
        assert refused(response(status)).follows is Follows.ANOTHER

    @pytest.mark.parametrize("status", [200, 302, 404, 405, 426])
    def test_a_wrong_place_is_tried_a_few_times(self, status: int) -> None:
        assert refused(response(status)).follows is Follows.A_FEW

    @pytest.mark.parametrize(("status", "expected"), [(429, 7.0), (503, 7.0), (500, 0.0)])
    def test_retry_after_counts_for_429_and_503(self, status: int, expected: float) -> None:
        assert refused(response(status, Retry_After="7")).retry_after_s == expected

    @pytest.mark.parametrize(
        ("body", "kind", "expected"),
        [
            (b"", "", "Some Phrase"),
            (b"go away\n", "text/plain; charset=utf-8", "go away"),
            (b"<html>", "text/html", "Some Phrase"),
            (b"[1]", "application/json", "Some Phrase"),
            (b'{"error": 5}', "application/json", "Some Phrase"),
            (b"\xff\xfe", "application/json", "Some Phrase"),
            (b"[" * 100_000, "application/json", "Some Phrase"),
            (b'{"error": "' + b"x" * 1000 + b'"}', "application/json", "x" * 200),
            (b"x" * 1000, "text/plain", "x" * 200),
        ],
    )
    def test_the_reason_of_other_bodies(self, body: bytes, kind: str, expected: str) -> None:
        assert refused(response(401, body, Content_Type=kind)).close.reason == expected


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("", 0),
            ("5", 5),
            (" 5 ", 5),
            ("-5", 0),
            ("soon", 0),
            ("nan", 0),
            ("inf", 0),
            ("1_0", 0),
            ("\N{ARABIC-INDIC DIGIT FIVE}", 0),
            ("9" * 5000, MAX_RETRY_AFTER_S),
        ],
    )
    def test_seconds(self, value: str, expected: float) -> None:
        assert read_retry_after_s(value) == expected

    def test_a_date(self) -> None:
        date = email.utils.formatdate(1000.0, usegmt=True)
        assert read_retry_after_s(date, now=lambda: 990.0) == 10
        assert read_retry_after_s(date, now=lambda: 1010.0) == 0

    def test_a_date_without_a_zone_is_in_gmt(self) -> None:
        date = email.utils.formatdate(1000.0, usegmt=True)
        for zoneless in (date.replace("GMT", "-0000"), "Thu Jan  1 00:16:40 1970"):
            assert read_retry_after_s(zoneless, now=lambda: 990.0) == 10

    @pytest.mark.parametrize("year", ["0000", "0001", "9999", "99999", "9" * 20, "9" * 5000])
    def test_fault_12_a_date_beyond_the_calendar(self, year: str) -> None:
        seconds = read_retry_after_s(f"Fri, 31 Dec {year} 23:59:59 GMT", now=lambda: 2e9)
        assert seconds == (MAX_RETRY_AFTER_S if year == "9999" else 0)

    @given(st.text())
    def test_no_header_is_an_error(self, value: str) -> None:
        assert 0 <= read_retry_after_s(value) <= MAX_RETRY_AFTER_S

    def test_nobody_is_sent_away_for_days(self) -> None:
        assert read_retry_after_s("86400") == MAX_RETRY_AFTER_S


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("ws://localhost:8080/ws?a=b", "ws://localhost:8080/ws?a=b"),
            ("wss://example.com", "wss://example.com"),
            ("http://localhost/ws#part", "ws://localhost/ws"),
            ("https://example.com/ws", "wss://example.com/ws"),
            (
                "ws://b\xfccher.example:80/\xe4%20b c",
                "ws://xn--bcher-kva.example:80/%C3%A4%20b%20c",
            ),
            ("ws://[::1]:8080/a?q=\xfc", "ws://[::1]:8080/a?q=%C3%BC"),
            ("ws://ann:p%20s@host/", "ws://ann:p%20s@host/"),
        ],
    )
    def test_http_means_ws(self, url: str, expected: str) -> None:
        assert websocket_url(url) == expected

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost:8080/ws",
            "ftp://x/",
            "ws://",
            "ws://[::1",
            "ws://a..b/",
            f"ws://{'a' * 64}.example/",
            "ws://ho st/",
            "ws://h:0/",
            "ws://h:99999/",
            "ws://h:x/",
            "ws://ann@h/",
            "ws://a%3Ab:c@h/",
        ],
    )
    def test_what_is_no_address(self, url: str) -> None:
        with pytest.raises(ValueError, match="is no WebSocket address"):
            websocket_url(url)

    def test_an_error_shows_no_secret(self) -> None:
        with pytest.raises(ValueError, match="ftp://host/ws") as caught:
            websocket_url("ftp://ann:pass@host/ws?token=secret")
        assert "secret" not in str(caught.value)
        assert "pass" not in str(caught.value)
        assert without_secrets("ws://u:p@host/ws?token=s#t") == "ws://host/ws"
