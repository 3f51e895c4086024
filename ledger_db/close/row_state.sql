-- 64 bits of all that counting a row reads of it, and of its parent. Cheap, and no proof of anything.
-- row: a row of ruled_transactions, with lacks_parent.
hash_record_extended(
    row(
        {row}.row_hash, {row}.counts, {row}.settles, {row}.exception, {row}.posted,
        {row}.own_hold, {row}.rate, {row}.rate < 0, {row}.effective_at,
        {row}.hold_effective_at, {row}.lacks_parent
    ),
    0
)
