-- When a balance's stored row was last seen to agree with its postings: the start of the newest verification of all
-- balances that did not find it drifting, or its newest correction. NULL: never seen.
-- balance_key: the balance. Read-only. Cost: the verifications, and the balance's discrepancies and corrections.
SELECT GREATEST(
    (
        SELECT max(done.started_at)
        FROM ledger_eod.verifications AS done
        WHERE done.status = 'finished'
            AND done.scope <> 'checksums'
            AND done.ledger_id IS NULL
            AND done.currency IS NULL
            AND done.balance_ids IS NULL
            AND NOT EXISTS (
                SELECT
                FROM ledger_eod.discrepancies AS known
                WHERE known.balance_key = CAST(:balance_key AS bigint)
                    AND known.business_date IS NULL
                    AND done.verification_id BETWEEN known.first_verification_id AND known.last_verification_id
            )
    ),
    (
        SELECT max(earlier.corrected_at)
        FROM ledger_eod.corrections AS earlier
        WHERE earlier.balance_key = CAST(:balance_key AS bigint)
    )
) AS agreed_at
