"""Ranges of keys: the balances of one batch of a job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KeyRange:
    """Balance keys from ``first_key`` to ``last_key``, both included; ``balance_count`` balances have one of them."""

    first_key: int
    last_key: int
    balance_count: int

    def __str__(self) -> str:
        return f"balance keys {self.first_key}–{self.last_key}"
