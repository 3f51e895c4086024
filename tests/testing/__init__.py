"""What the tests share: books in the tests' words, an oracle, writers, databases, generated histories."""

from pathlib import Path

#: The checkout.
PROJECT = Path(__file__).resolve().parents[2]
