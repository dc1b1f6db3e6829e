"""Simulated transaction streams: card payments, and transfers with laundering rings."""

from __future__ import annotations

from tasks.fraud.simulate.cards import CARDS_SCHEMA, CardsConfig, simulate_cards
from tasks.fraud.simulate.drift import Drift
from tasks.fraud.simulate.transfers import TRANSFERS_SCHEMA, TransfersConfig, simulate_transfers

__all__ = [
    "CARDS_SCHEMA",
    "TRANSFERS_SCHEMA",
    "CardsConfig",
    "Drift",
    "TransfersConfig",
    "simulate_cards",
    "simulate_transfers",
]
