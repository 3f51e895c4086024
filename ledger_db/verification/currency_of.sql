-- The currency of a balance as closes have it: as captured, or as it is when no run has captured it yet.
-- balance_id: the balance. Cost: one or two index probes.
COALESCE(
    (
        SELECT captured.currency FROM ledger_eod.captured_balances AS captured
        WHERE captured.balance_id = {balance_id}
    ),
    (
        SELECT live.currency FROM blnk.balances AS live
        WHERE live.balance_id = {balance_id}
    )
)
