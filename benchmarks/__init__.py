"""What the night costs, measured: ``make bench`` (or ``python -m benchmarks --help``)."""
