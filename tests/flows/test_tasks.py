"""The loop inside a task, and the hold on a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import OperationalError

from ledger_db.errors import BatchFailed, Hint, RunAtWork, UnknownBalance
from tasks.each import for_each
from tasks.holds import held
from tests.testing.books import Books


def double(number: int) -> int:
    if number == 2:
        raise UnknownBalance("there is no balance 2", hint=Hint.list_balances)
    if number == 3:
        raise OperationalError("SELECT 1", {}, ConnectionError("gone\nand more"))
    return 2 * number


def test_results_come_in_order() -> None:
    assert for_each(double, [4, 1, 5]) == [8, 2, 10]
    assert for_each(double, []) == []


def test_a_failure_does_not_keep_the_others_from_being_done_and_all_are_named() -> None:
    with pytest.raises(BatchFailed) as caught:
        for_each(double, [1, 2, 3, 4], name=lambda number: f"no. {number}", failure="could not double ", written=int)
    assert str(caught.value) == "could not double no. 2: there is no balance 2; no. 3: gone"
    assert (caught.value.transient, caught.value.written, caught.value.hint) == (True, 10, Hint.list_balances)


def test_facts_alone_are_not_transient_and_each_result_counts_one() -> None:
    with pytest.raises(BatchFailed) as caught:
        for_each(double, [1, 2, 4])
    assert (str(caught.value), caught.value.transient, caught.value.written) == ("2: there is no balance 2", False, 2)


def test_what_another_process_holds_is_refused_without_entering_the_block(books: Books) -> None:
    @contextmanager
    def hold(_: object, key: int) -> Iterator[bool]:
        yield key == 1

    entered = []
    with held(hold, 1, "run 1"):
        entered.append(1)
    with pytest.raises(RunAtWork, match=r"^another process is at work on run 2$"), held(hold, 2, "run 2"):
        entered.append(2)
    assert entered == [1]
