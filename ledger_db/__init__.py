"""The ledger's schema and every SQL statement of the end-of-day jobs. Knows no orchestrator."""
