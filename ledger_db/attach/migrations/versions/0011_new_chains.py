"""New chains: who began one and why, by what it differs from the close before it, and the approval."""

from alembic import op

revision = "0011"
down_revision = "0010"

TABLES = """
CREATE TABLE ledger_eod.new_chains (
    run_id bigint NOT NULL,
    previous_run_id bigint NOT NULL,
    reason text NOT NULL,
    proposed_by text NOT NULL,
    proposed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    has_same_rows boolean,
    gone_count bigint,
    changed_dates date[],
    compared_at timestamptz,
    figures_hash varchar(64),
    approval_id bigint,
    CONSTRAINT pk_new_chains PRIMARY KEY (run_id),
    CONSTRAINT uq_new_chains_approval_id UNIQUE (approval_id),
    CONSTRAINT fk_new_chains_run_id FOREIGN KEY (run_id) REFERENCES ledger_eod.runs (run_id),
    CONSTRAINT fk_new_chains_previous_run_id FOREIGN KEY (previous_run_id) REFERENCES ledger_eod.runs (run_id),
    CONSTRAINT fk_new_chains_approval_id FOREIGN KEY (approval_id) REFERENCES ledger_eod.approvals (approval_id)
);
CREATE TABLE ledger_eod.new_chain_differences (
    run_id bigint NOT NULL,
    balance_key bigint NOT NULL,
    previous_credit_balance numeric NOT NULL,
    previous_debit_balance numeric NOT NULL,
    previous_inflight_credit_balance numeric NOT NULL,
    previous_inflight_debit_balance numeric NOT NULL,
    present_credit_balance numeric NOT NULL,
    present_debit_balance numeric NOT NULL,
    present_inflight_credit_balance numeric NOT NULL,
    present_inflight_debit_balance numeric NOT NULL,
    CONSTRAINT pk_new_chain_differences PRIMARY KEY (run_id, balance_key)
);
CREATE TABLE ledger_eod.new_chain_transactions (
    run_id bigint NOT NULL,
    balance_key bigint NOT NULL,
    transaction_key bigint NOT NULL,
    is_added boolean NOT NULL,
    credit_balance numeric NOT NULL,
    debit_balance numeric NOT NULL,
    inflight_credit_balance numeric NOT NULL,
    inflight_debit_balance numeric NOT NULL,
    CONSTRAINT pk_new_chain_transactions PRIMARY KEY (run_id, balance_key, transaction_key)
);
"""

EVIDENCE_TRIGGERS = """
CREATE TRIGGER refuse_insert AFTER INSERT ON ledger_eod.{table} REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_certified_insert();
CREATE TRIGGER refuse_edit BEFORE UPDATE ON ledger_eod.{table}
FOR EACH ROW EXECUTE FUNCTION ledger_eod.{on_edit}();
CREATE TRIGGER refuse_delete BEFORE DELETE ON ledger_eod.{table}
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_certified_delete();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger_eod.{table}
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_change();
"""

# What was proposed stays; what comes later, the comparison and the approval, is written once.
REFUSE_EDIT = """
CREATE FUNCTION ledger_eod.refuse_new_chain_edit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.run_id, NEW.previous_run_id, NEW.reason, NEW.proposed_by, NEW.proposed_at)
            IS DISTINCT FROM (OLD.run_id, OLD.previous_run_id, OLD.reason, OLD.proposed_by, OLD.proposed_at)
        OR OLD.approval_id IS NOT NULL
        OR (
            OLD.compared_at IS NOT NULL
            AND (NEW.has_same_rows, NEW.gone_count, NEW.changed_dates, NEW.compared_at)
                IS DISTINCT FROM (OLD.has_same_rows, OLD.gone_count, OLD.changed_dates, OLD.compared_at)
        )
        OR (OLD.figures_hash IS NOT NULL AND NEW.figures_hash IS DISTINCT FROM OLD.figures_hash)
        OR EXISTS (SELECT FROM ledger_eod.runs WHERE run_id = OLD.run_id AND status <> 'open') THEN
        RAISE EXCEPTION 'UPDATE of ledger_eod.new_chains is refused: it is evidence'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
"""

# A key of a close whose table was made anew since names no transaction any more.
VIEW = """
CREATE OR REPLACE FUNCTION ledger_eod.read_daily_balances() RETURNS TABLE (
    balance_id text, ledger_id text, indicator text, identity_id text, currency text, business_date date,
    kind ledger_eod.run_kind, balance numeric, credit_balance numeric, debit_balance numeric,
    inflight_balance numeric, inflight_credit_balance numeric, inflight_debit_balance numeric,
    closes_at timestamptz, last_transaction_id text, certified boolean, run_id bigint, correction_id bigint
) LANGUAGE sql STABLE AS $$
SELECT
    captured.balance_id, balances.ledger_id, balances.indicator, balances.identity_id, captured.currency,
    runs.business_date, runs.kind,
    snapshots.credit_balance - snapshots.debit_balance, snapshots.credit_balance, snapshots.debit_balance,
    snapshots.inflight_credit_balance - snapshots.inflight_debit_balance, snapshots.inflight_credit_balance,
    snapshots.inflight_debit_balance,
    runs.closes_at,
    (
        SELECT transaction_id FROM blnk.transactions
        WHERE transactions.id = snapshots.last_transaction_key AND NOT EXISTS (
            SELECT FROM ledger_eod.new_chains
            JOIN ledger_eod.runs AS begun ON begun.run_id = new_chains.run_id AND begun.status = 'certified'
            WHERE NOT new_chains.has_same_rows AND new_chains.run_id > runs.run_id
        )
    ),
    runs.status = 'certified', runs.run_id,
    (
        SELECT max(corrections.correction_id)
        FROM ledger_eod.corrections
        WHERE corrections.balance_key = snapshots.balance_key
            AND runs.opened_at < corrections.corrected_at
            AND runs.opened_at >= COALESCE(corrections.drifted_since, '-infinity')
    )
FROM ledger_eod.runs
JOIN ledger_eod.balance_snapshots AS snapshots
    ON snapshots.business_date = runs.business_date AND snapshots.kind = runs.kind AND snapshots.run_id = runs.run_id
JOIN ledger_eod.captured_balances AS captured ON captured.balance_key = snapshots.balance_key
LEFT JOIN blnk.balances ON balances.balance_id = captured.balance_id
$$;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(REFUSE_EDIT)
    op.execute(VIEW)
    op.execute(EVIDENCE_TRIGGERS.format(table="new_chains", on_edit="refuse_new_chain_edit"))
    op.execute(EVIDENCE_TRIGGERS.format(table="new_chain_differences", on_edit="refuse_change"))
    op.execute(EVIDENCE_TRIGGERS.format(table="new_chain_transactions", on_edit="refuse_change"))
