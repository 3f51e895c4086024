-- Whether a run is a certified close of a chain, up to one of its closes.
-- run: the run. genesis_run_id: the chain's first run. run_id: the close up to which.
(
    {run}.genesis_run_id = {genesis_run_id}
    AND {run}.kind = 'close'
    AND {run}.status = 'certified'
    AND {run}.run_id <= {run_id}
)
