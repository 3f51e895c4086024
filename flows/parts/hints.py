"""The words of each hint in a flow run's message, for a reader of the Prefect UI: flows and forms, no commands."""

from __future__ import annotations

from ledger_db.errors import Hint

WORDS: dict[Hint, str] = {
    Hint.list_balances: "check its id among the ledger's balances",
    Hint.list_discrepancies: "the tables of verify-balances list the open discrepancies",
    Hint.list_runs: "the runs of end-of-day and snapshot-balances are named by the dates they closed",
    Hint.migrate: "migrate the database, or install the version that did",
    Hint.name_the_currency: "name its currency too",
    Hint.name_the_ledger: "set LEDGER_DATABASE_URL where the worker runs to the ledger that you mean",
    Hint.choose_first_close: "run end-of-day once with first_close set to from-first-posting or only-last, or with "
    "since",
    Hint.confirm_first_close: "if you mean it, run end-of-day with confirmed",
    Hint.close_missing_dates: "end-of-day closes all that are missing, in order",
    Hint.close_a_date_first: "close a business date with end-of-day first",
    Hint.take_interim: "take an interim snapshot meanwhile",
    Hint.ask_history: "the ledger's history answers for any instant, and an interim snapshot can cover the date",
    Hint.run_again: "run it again",
    Hint.verify_checksums: "run verify-balances with the scope checksums before you run it again",
    Hint.verify_first: "run verify-balances first",
    Hint.start_verification: "start a new run of verify-balances",
    Hint.propose_again: "run reconstruct-balances again for a new proposal",
    Hint.show_proposal: "the table of the reconstruction has the figures and their hash",
    Hint.begin_new_chain: "where it is as it should be, a new chain of closes is begun on the command line",
    Hint.show_new_chain: "the command line shows what waits, with its hash",
    Hint.approve_new_chain: "the command line shows what it differs by, and takes the approval",
}


def with_hint(fact: str, hint: Hint | None) -> str:
    """A message for the Prefect UI: the fact, then what to do next where there is a hint."""
    return fact if hint is None else f"{fact}; {WORDS[hint]}"
