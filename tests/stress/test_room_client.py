"""An account tells what is lost from what came twice, late, or is known to be missing."""

from __future__ import annotations

from stress.room_client import Account

PUBLISHED = {1: 4, 2: 1}


def account(*numbers: int) -> Account:
    made = Account()
    for number in numbers:
        made.take(1, number)
    made.take(2, 1)
    return made


def verdict(made: Account) -> tuple[int, int, int, int]:
    return made.lost(PUBLISHED), made.twice, made.late, made.missed


def test_all_in_order_is_whole() -> None:
    made = account(1, 2, 3, 4)
    assert made.has_all(PUBLISHED)
    assert verdict(made) == (0, 0, 0, 0)


def test_what_does_not_come_is_lost_in_the_middle_and_at_the_end() -> None:
    assert verdict(account(1, 2, 4)) == (1, 0, 0, 0)
    made = account(1, 2)
    assert not made.has_all(PUBLISHED)
    assert verdict(made) == (2, 0, 0, 0)


def test_what_comes_again_is_twice_and_what_comes_behind_a_later_one_is_late() -> None:
    assert verdict(account(1, 2, 2, 3, 4, 1)) == (0, 2, 0, 0)
    assert verdict(account(1, 3, 2, 4)) == (0, 0, 1, 0)


def test_what_is_told_to_be_missing_is_not_lost_in_silence_and_only_once() -> None:
    made = account(1)
    made.tell([1, 2])
    made.take(1, 4)
    assert (made.told, verdict(made)) == (1, (0, 0, 0, 2))
    assert Account().lost(PUBLISHED) == 5
    made.take(1, 6)
    assert made.lost({1: 6}) == 1
