"""The sockets of a server: where it listens, what it inherits, and what is in the way."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import click
import pytest

from commands import PATIENCE_S, no_traceback, taken_port
from hubbub.cli.serve import Serving
from hubbub.cli.sockets import address_of, inherited, listen
from hubbub.cli.target import read_target
from stress.ports import free_port


def test_one_address_of_two_in_use_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with taken_port() as port:
        infos = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))
            for host in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **keywords: infos)
        with pytest.raises(click.ClickException, match="is in use"):
            listen("localhost", port)


def test_an_address_that_cannot_be_had_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 0))
        for host in ("192.0.2.1", "127.0.0.1", "127.0.0.2")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **keywords: infos)
    bound = listen("localhost", 0)
    names = [sock.getsockname() for sock in bound]
    for sock in bound:
        sock.close()
    assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2"]
    assert names[0][1] == names[1][1] != 0


def test_a_port_is_held_before_the_server_is_ready() -> None:
    (sock,) = listen("127.0.0.1", 0)
    with sock:
        host, port = sock.getsockname()
        with pytest.raises(click.ClickException, match=f"port {port} of 127.0.0.1 is in use"):
            listen(host, port)
        socket.create_connection((host, port), PATIENCE_S).close()


def test_all_addresses_of_both_families_have_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [
        (family, socket.SOCK_STREAM, 0, "", address)
        for family, address in (
            (socket.AF_INET6, ("::", 0, 0, 0)),
            (socket.AF_INET, ("0.0.0.0", 0)),
        )
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **keywords: infos)
    bound = listen("", 0)
    ports = {sock.getsockname()[1] for sock in bound}
    families = {sock.family for sock in bound}
    for sock in bound:
        sock.close()
    assert len(ports) == 1
    assert socket.AF_INET in families  # not every machine has IPv6


@pytest.mark.parametrize("is_any", [True, False])
def test_a_free_port_that_another_address_has_not_free_is_chosen_anew(
    is_any: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 0))
        for host in ("127.0.0.1", "127.0.0.2")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **keywords: infos)
    create, in_the_way = socket.create_server, list[socket.socket]()

    def create_server(place: Any, **keywords: Any) -> socket.socket:
        made = create(place, **keywords)
        if not in_the_way and place[0] == "127.0.0.1":
            in_the_way.append(create(("127.0.0.2", made.getsockname()[1])))
        return made

    monkeypatch.setattr(socket, "create_server", create_server)
    if is_any:
        bound = listen("localhost", 0)
        assert len({sock.getsockname()[1] for sock in bound}) == 1
        assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1", "127.0.0.2"]
    else:
        bound = []
        with pytest.raises(click.ClickException, match="is in use"):
            listen("localhost", free_port())
    for sock in (*bound, *in_the_way):
        sock.close()


def test_a_descriptor_that_takes_no_connections_is_said() -> None:
    with socket.socket() as bound, open(os.devnull) as other:
        bound.bind(("127.0.0.1", 0))
        for descriptor, what in (
            (bound.fileno(), "takes no connections"),
            (other.fileno(), "no socket"),
        ):
            with pytest.raises(click.ClickException, match=f"--fd {descriptor}: .*{what}"):
                inherited(descriptor)
        assert bound.fileno() >= 0
    assert "no socket" in no_traceback("serve", "--fd", "77")


def test_a_descriptor_that_does_is_served_from_and_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        copy = inherited(os.dup(listening.fileno()))
        assert address_of(Serving(target=read_target("app")), [copy]) == f"http://localhost:{port}"
        copy.close()
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "sock"))
        local.listen()
        place = address_of(Serving(target=read_target("app")), [local])
        assert place == f"unix:{tmp_path / 'sock'}"
