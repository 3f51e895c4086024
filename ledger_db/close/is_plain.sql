-- Whether all that a row of dated does is to post a small amount, on the date itself, within one
-- currency, as nearly all do. num_nonnulls, because the planner takes a condition IS NULL for rare.
-- Takes the parameter on_time_date.
(
    is_small
    AND effective_date = CAST(:on_time_date AS date)
    AND num_nonnulls(obstacle) < 1
    AND NOT is_cross_currency
)
