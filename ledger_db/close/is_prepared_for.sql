-- Whether a run prepares a close: what is counted in the one has the same dates and the same base in the other.
-- preparing, closing: the runs.
(
    {preparing}.kind = 'preparation'
    AND {preparing}.status = 'open'
    AND {preparing}.planned_at IS NOT NULL
    AND {preparing}.base_run_id = {closing}.base_run_id
    AND {preparing}.genesis_run_id = {closing}.genesis_run_id
    AND {preparing}.cluster_id = {closing}.cluster_id
    AND {preparing}.business_date = {closing}.business_date
    AND {preparing}.time_zone = {closing}.time_zone
    AND {preparing}.cut_off = {closing}.cut_off
    AND {preparing}.opens_at = {closing}.opens_at
    AND {preparing}.closes_at = {closing}.closes_at
)
