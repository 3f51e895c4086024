"""Hints in the words of the command line: what a user can do next after an error."""

from __future__ import annotations

from typing import Final

from ledger_db.errors import Hint, LedgerError

WORDS: Final[dict[Hint, str]] = {
    Hint.list_balances: "ledger-eod balances lists them",
    Hint.list_discrepancies: "ledger-eod discrepancies lists those that need it",
    Hint.list_runs: "ledger-eod runs lists them",
    Hint.migrate: "run ledger-eod migrate (or install the version that wrote it)",
    Hint.name_the_currency: "say which with --currency",
    Hint.name_the_ledger: "set LEDGER_DATABASE_URL to the ledger that you mean; ledger-eod generate makes an embedded "
    "one with generated balances",
    Hint.choose_first_close: "say where its closes begin: ledger-eod close --from-first-posting, --since DATE, or "
    "--only-last",
    Hint.confirm_first_close: "if you mean it, ledger-eod close takes it with --yes",
    Hint.close_missing_dates: "ledger-eod close closes all that are missing, in order",
    Hint.close_a_date_first: "close a date first with ledger-eod close, or use ledger-eod verify --scope from-genesis",
    Hint.take_interim: "ledger-eod snapshot --kind interim takes an interim snapshot meanwhile",
    Hint.ask_history: "ledger-eod balance-at answers for any instant, and an interim run can snapshot the date",
    Hint.run_again: "run it again",
    Hint.verify_checksums: "ledger-eod verify --scope checksums names the dates and balances that were changed",
    Hint.verify_first: "verify it first with ledger-eod verify",
    Hint.start_verification: "start a new one with ledger-eod verify",
    Hint.propose_again: "propose it again with ledger-eod reconstruct --apply",
    Hint.show_proposal: "ledger-eod reconstruct without --approve shows them",
    Hint.begin_new_chain: "where it is as it should be, ledger-eod new-chain begins a new chain of closes",
    Hint.show_new_chain: "ledger-eod new-chain shows what waits, with its hash",
    Hint.approve_new_chain: "ledger-eod new-chain shows what it differs by, and takes the approval",
}


def with_hint(error: LedgerError) -> str:
    """An error's message, followed by what to do next where the error has a hint."""
    return str(error) if error.hint is None else f"{error}; {WORDS[error.hint]}"
