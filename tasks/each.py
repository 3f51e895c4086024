"""The loop over the units of work of one task: one failure does not stop the others, and all failures are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from ledger_db.errors import BatchFailed, LedgerError, first_line, is_transient

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def for_each(
    work: Callable[[Unit], Result],
    units: Iterable[Unit],
    *,
    name: Callable[[Unit], str] = str,
    failure: str = "",
    written: Callable[[Result], int] = lambda _: 1,
) -> list[Result]:
    """Do the work for each unit in order and return the results, in order.

    A unit that fails does not keep the others from being done. ``name`` is how a message names a unit, ``failure`` what
    stands before the failed ones, ``written`` how many rows a result stands for.

    Raises:
        BatchFailed: at least one unit failed. The message names each of them and why. It is transient when another try
            may do at least one of them; ``written`` is the sum over the results; the hint is the first one given.
    """
    results: list[Result] = []
    failed: list[tuple[Unit, Exception]] = []
    for unit in units:
        try:
            results.append(work(unit))
        except Exception as error:
            failed.append((unit, error))
    if failed:
        raise BatchFailed(
            failure + "; ".join(f"{name(unit)}: {first_line(error)}" for unit, error in failed),
            transient=any(is_transient(error) for _, error in failed),
            written=sum(written(result) for result in results),
            hint=next((error.hint for _, error in failed if isinstance(error, LedgerError) and error.hint), None),
        )
    return results
