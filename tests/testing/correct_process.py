"""A process that goes on with an interrupted reconstruction: ``python -m tests.testing.correct_process URL RUN``.

Made to be killed. Says on standard output which balance it corrected, one a line, and ends with ``ended``
or ``nothing``.
"""

from __future__ import annotations

import sys

from sqlalchemy import make_url

from ledger_db.correction import driver
from ledger_db.correction.proposals import find_resumable
from ledger_db.server.connections import make_engine
from tests.testing.close_process import say


def main(url: str, flow_run_id: str) -> None:
    engine = make_engine(make_url(url))
    with engine.begin() as connection:
        resumed = find_resumable(connection, flow_run_id)
    if resumed is None:
        say("nothing")
        return
    say("resumed")
    driver.apply(engine, resumed.reconstruction_id, progress=lambda balance_id, outcome: say(f"{outcome}-{balance_id}"))
    say("ended")


if __name__ == "__main__":
    main(*sys.argv[1:])
