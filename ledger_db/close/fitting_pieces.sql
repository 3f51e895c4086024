-- Whether pieces that were counted in advance for a close still say what counting their rows now would say.
-- run_id, cut, cluster_id: the close. first_key, last_key: of the pieces in this range. rules: of fingerprint_of_rows.
-- Not one with rows that could not be counted, and none of a preparation that found balances otherwise than the close.
-- Returns first_key, last_key and fits, in key order. Read-only. Cost: their rows, one scan.
WITH
-- include postings.postings
,

looked AS NOT MATERIALIZED (
    SELECT
        ruled.*,
-- include lacks_parent(row: ruled)
            AS lacks_parent
    FROM ruled_transactions AS ruled
),

prepared AS MATERIALIZED (
    SELECT
        pieces.first_key,
        pieces.last_key,
        pieces.fingerprint,
        NOT EXISTS (
            SELECT FROM ledger_eod.run_exceptions AS itemised
            WHERE itemised.run_id = pieces.run_id
                AND itemised.piece = pieces.piece
                AND itemised.cause NOT IN ('legacy_rate', 'cross_currency')
        )
        AND NOT EXISTS (
            SELECT FROM ledger_eod.prepared_balances AS found
            WHERE found.run_id = pieces.run_id
                AND NOT EXISTS (
                    SELECT FROM ledger_eod.captured_balances AS captured
                    WHERE captured.balance_key = found.balance_key
                        AND captured.balance_id = found.balance_id
                        AND captured.currency = found.currency
                        AND captured.first_run_id <= CAST(:run_id AS bigint)
                )
        ) AS may_fit
    FROM (
-- include done_in_advance
    ) AS pieces
    WHERE pieces.first_key >= CAST(:first_key AS bigint) AND pieces.last_key <= CAST(:last_key AS bigint)
)

SELECT
    prepared.first_key,
    prepared.last_key,
    prepared.may_fit
    AND prepared.fingerprint = (
        SELECT
-- include fingerprint_of_rows(rows: states)
                AS fingerprint
        FROM (
            SELECT
                looked.transaction_key,
-- include row_state(row: looked)
                    AS row_state
            FROM looked
            WHERE looked.transaction_key BETWEEN prepared.first_key AND prepared.last_key
                AND
-- include in_cut(key: looked.transaction_key; xid: looked.recorded_xid; cut: CAST(:cut AS pg_snapshot))
        ) AS states
    ) AS fits
FROM prepared
ORDER BY prepared.first_key
