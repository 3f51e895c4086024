"""``python -m deployments.cli`` is ``ledger-eod``."""

from deployments.cli import main

if __name__ == "__main__":
    main()
