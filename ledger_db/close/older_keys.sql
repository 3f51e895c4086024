-- The keys at or below a base's highest key that the base's chain has not counted, by block: what was
-- pending at the base, gone rows included, stragglers, and what came with a restored copy.
-- Columns block and keys; nothing without a base. base: as for pending_keys and straggling_keys.
-- Cost: what is pending and what was recorded since, by index; with a foreign base all keys.
SELECT
    candidates.block,
    range_agg(candidates.span) AS keys
FROM (
    SELECT
        pending.block,
        unnest(pending.keys) AS span
    FROM (
-- include pending_keys(base: {base})
    ) AS pending
    UNION ALL
-- include straggling_keys(base: {base})
) AS candidates
GROUP BY candidates.block
