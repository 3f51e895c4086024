"""A process of its own that counts a day in advance: ``python -m tests.testing.prepare_process URL INSTANT``.

Made to be killed. Writes to standard output which piece it has counted, one word a line, and ends with ``prepared``.
"""

from __future__ import annotations

import sys
from datetime import datetime

from sqlalchemy import make_url

from ledger_db.close.preparing import prepare_close
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.server.connections import make_engine
from tests.testing.close_process import say, say_step


def main(url: str, written_instant: str) -> None:
    now = datetime.fromisoformat(written_instant)
    say("started")
    prepare_close(make_engine(make_url(url)), calendar=BusinessCalendar(), now=now, piece_size=1, report=say_step)
    say("prepared")


if __name__ == "__main__":
    main(*sys.argv[1:])
