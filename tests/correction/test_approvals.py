"""Approvals: what counts, and every way in which somebody might get a correction applied that nobody else approved."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest

from ledger_db.correction.proposals import begin_applying, find_approval, find_proposal, find_resumable
from ledger_db.correction.reconstructions import Reconstruction, find_reconstruction
from ledger_db.errors import ApprovalRefused, ReconstructionRefused
from ledger_db.evidence.approvals import Approval, decide
from tests.testing.books import Books, Ledger
from tests.testing.reconstructions import APPROVER, PROPOSER, approve, correct, log, propose, tamper

HOURS = 72


@pytest.fixture
def books(ledger: Ledger) -> Books:
    """A closed day, and a stored row that somebody changed."""
    books = Books(ledger)
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       100.00 USD
        2026-01-31 09:00  @world  shop         100.00 USD
        """)
    books.close_day("2026-01-31")
    tamper(books, "wallet", "credit_balance", 500)
    return books


def found(books: Books, proposal: Reconstruction, *, within_hours: int = HOURS) -> Approval | None:
    with books.engine.connect() as connection:
        return find_approval(connection, proposal, within_hours=within_hours)


def apply(books: Books, proposal: Reconstruction, approval: Approval | None) -> None:
    with books.engine.begin() as connection:
        begin_applying(connection, proposal.reconstruction_id, None if approval is None else approval.approval_id)


def reject(books: Books, proposal: Reconstruction, *, by: str = APPROVER) -> Approval:
    with books.engine.begin() as connection:
        return decide(connection, proposal, decision="rejected", decided_by=by, channel="test")


def test_approval_counts_for_as_long_as_it_is_set(books: Books) -> None:
    proposal = propose(books, "wallet")
    approval = approve(books, proposal)
    assert found(books, proposal) == approval
    books.execute("ALTER TABLE ledger_eod.approvals DISABLE TRIGGER refuse_edit")
    books.execute("UPDATE ledger_eod.approvals SET decided_at = decided_at - make_interval(hours => :h)", h=HOURS)
    assert found(books, proposal) is None
    assert found(books, proposal, within_hours=HOURS + 1) is not None
    with pytest.raises(ApprovalRefused, match="needs an approval: 500 USD in all"):
        apply(books, proposal, None)
    assert log(books) == []


@pytest.mark.parametrize(
    "spelled",
    [
        "josé  ÁLVAREZ",
        unicodedata.normalize("NFD", "José Álvarez"),
        "\u00a0José\u2003Álvarez ",
        "José\u200b Álvarez",  # a space of no width
        "\uff2aosé Álvarez",  # a wide letter
    ],
    ids=["case", "decomposed", "blanks", "zero width", "wide"],
)
def test_proposer_by_another_spelling_does_not_approve(books: Books, spelled: str) -> None:
    proposal = propose(books, "wallet", proposed_by="José Álvarez")
    refused = approve(books, proposal, by=spelled)
    assert (refused.decision, found(books, proposal)) == ("refused", None)
    assert "somebody else must approve it" in refused.remark


def test_approval_by_nobody_is_refused(books: Books) -> None:
    proposal = propose(books, "wallet")
    for nobody in ("", "  ", "\u200b"):
        assert (
            approve(books, proposal, by=nobody).remark == "an approval is evidence: it needs the name of who approves"
        )
    assert found(books, proposal) is None


def test_where_nobody_is_named_as_proposer_anybody_may_approve(books: Books) -> None:
    report = propose(books, "wallet", mode="report", proposed_by="", reason="")
    assert approve(books, report).decision == "approved"
    assert found(books, report) is not None


def test_report_without_a_reason_has_none(books: Books) -> None:
    assert propose(books, "wallet", mode="report", proposed_by="", reason="").reason == ""


@pytest.mark.parametrize("decision", ["refused", "rejected", "other figures", "no such"])
def test_only_an_approval_of_these_figures_is_used(books: Books, decision: str) -> None:
    other = propose(books, "wallet")
    tamper(books, "wallet", "credit_balance", 1)
    proposal = propose(books, "wallet")
    decisions: dict[str, Callable[[], int]] = {
        "refused": lambda: approve(books, proposal, by=PROPOSER).approval_id,
        "rejected": lambda: reject(books, proposal).approval_id,
        "other figures": lambda: approve(books, other).approval_id,
        "no such": lambda: 99,
    }
    approval_id = decisions[decision]()
    with pytest.raises(ApprovalRefused), books.engine.begin() as connection:
        begin_applying(connection, proposal.reconstruction_id, approval_id)
    with pytest.raises(ReconstructionRefused, match="not being applied"):
        correct(books, proposal, "wallet")


def test_approval_given_before_somebody_rejects_the_figures_does_not_count(books: Books) -> None:
    proposal = propose(books, "wallet")
    approve(books, proposal)
    reject(books, proposal, by="Heidi")
    again = propose(books, "wallet", proposed_by="Bob")
    assert again.figures_hash == proposal.figures_hash
    assert found(books, again) is None
    later = approve(books, again)
    assert found(books, again) == later


def test_rejected_proposal_must_be_proposed_again(books: Books) -> None:
    from ledger_db.correction.reconstructions import end_reconstruction

    proposal = propose(books, "wallet")
    reject(books, proposal)
    with books.engine.begin() as connection:
        end_reconstruction(connection, proposal.reconstruction_id, status="rejected")
        with pytest.raises(ApprovalRefused, match="was rejected"):
            find_proposal(connection, str(proposal.figures_hash))
    propose(books, "wallet")
    with books.engine.connect() as connection:
        assert find_proposal(connection, str(proposal.figures_hash)).status == "proposed"


def test_proposer_of_the_same_figures_does_not_use_an_own_approval_of_them(books: Books) -> None:
    approve(books, propose(books, "wallet"), by="Grace")
    mine = propose(books, "wallet", proposed_by="grace")
    assert found(books, mine) is None
    assert found(books, propose(books, "wallet", proposed_by="Bob")) is not None


def test_superseded_proposal_is_not_applied_and_not_resumed(books: Books) -> None:
    old = propose(books, "wallet", flow_run_id="run")
    approval = approve(books, old)
    new = propose(books, "wallet", flow_run_id="run")
    with books.engine.connect() as connection:
        assert find_reconstruction(connection, old.reconstruction_id).status == "superseded"
        assert find_resumable(connection, "run") is None, "proposed is not approved"
    with pytest.raises(ReconstructionRefused, match="is superseded"):
        apply(books, old, approval)
    apply(books, new, approval)
    with books.engine.connect() as connection:
        assert find_resumable(connection, "another run") is None
        assert find_resumable(connection, None) is None
        resumed = find_resumable(connection, "run")
    assert resumed is not None
    assert (resumed.reconstruction_id, resumed.approved_by) == (new.reconstruction_id, APPROVER)


def test_request_by_flag_needs_the_same_approval(books: Books) -> None:
    flag = '{"BLNK_RUN_RECONCILIATION": "SOURCE"}'
    books.execute("UPDATE blnk.balances SET meta_data = CAST(:flag AS jsonb)", flag=flag)
    proposal = propose(books, selection="requested", proposed_by="", reason="")
    assert proposal.approval_reasons == ["500 USD in all, the limit is 0 (minor units)"]
    assert (proposal.reason, proposal.proposed_by) == ("requested in the balance's meta_data", "")
    with pytest.raises(ApprovalRefused, match="needs an approval"):
        apply(books, proposal, None)
    tamper(books, "shop", "credit_balance", 900)  # right when it was proposed
    apply(books, proposal, approve(books, proposal))
    rows = books.stored_rows()
    assert correct(books, proposal, "shop") == "stale"
    assert books.stored_rows() == rows
    assert correct(books, proposal, "wallet") == "corrected"
