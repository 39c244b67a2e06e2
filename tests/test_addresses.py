"""Addresses: what counts as one, and counting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.addresses import Addresses, address_key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, None),
        ("", None),
        ("testclient", None),
        ("unknown", None),
        ("192.0.2.1:80", None),
        ("192.0.2.1, 192.0.2.2", None),
        ("1" * 100_000, None),
    ],
)
def test_what_an_address_counts_as(address: str | None, key: str | None) -> None:
    assert address_key(address) == key


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_network_count_as_one(address: object, host: int) -> None:
    network = int(address) >> 64 << 64  # type: ignore[call-overload]
    is_mapped = network == 0
    one, other = (address_key(str(type(address)(network | low))) for low in (1, host))  # type: ignore[call-arg]
    assert is_mapped or one == other


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_counts_are_right_and_what_has_gone_leaves_nothing(steps: list[tuple[str, bool]]) -> None:
    addresses, model = Addresses(), {"a": 0, "b": 0, "c": 0}
    for key, comes in steps:
        if comes:
            addresses.add(key)
            model[key] += 1
        elif model[key]:
            addresses.remove(key)
            model[key] -= 1
        else:
            with pytest.raises(KeyError):
                addresses.remove(key)
        assert {key: addresses.count(key) for key in model} == model
        assert len(addresses) == sum(map(bool, model.values()))
