"""Modules that no rule per layer covers, by the engine, against Shapley's mean over orders.

More kinds stand in ``tests/benchmarks/shap_modules.py``, which runs as a test too.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from tasks.explain.background import Background
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.players import Players
from tasks.explain.scores import TorchScores

NAMES = ("merchant", "country", "a", "b", "c", "d")
CODES = 5


class Embedded(nn.Module):
    """Two columns are ids of embeddings; scores are ``[n]``."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(CODES, 4), nn.Embedding(CODES, 4)])
        self.inner = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 1))

    def forward(self, x):
        parts = [table(x[:, place].long()) for place, table in enumerate(self.tables)]
        return self.inner(torch.cat([*parts, x[:, 2:]], dim=1)).squeeze(1)


class Attending(nn.Module):
    """Features are tokens: attention, a residual, layer normalisation, dropout left in."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(6, 8))
        self.mix = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(48, 1)

    def forward(self, x):
        tokens = x[:, :, None] * self.place + self.place
        mixed = self.norm(tokens + self.mix(tokens, tokens, tokens, need_weights=False)[0])
        return self.last(mixed.flatten(1))


class Recurrent(nn.Module):
    """Features are steps of an LSTM, read from both sides."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(1, 6, bidirectional=True, batch_first=True)
        self.last = nn.Linear(12, 1)

    def forward(self, x):
        return self.last(self.layer(x[:, :, None])[0].mean(dim=1))


class Passing(nn.Module):
    """Features are nodes of a ring that send messages twice by one layer, with a gate."""

    def __init__(self):
        super().__init__()
        self.enter, self.send = nn.Linear(1, 4), nn.Linear(8, 4)
        self.gate, self.last = nn.Linear(8, 4), nn.Linear(4, 1)

    def forward(self, x):
        source, target = torch.arange(6), torch.arange(6).roll(1)
        nodes = torch.relu(self.enter(x[:, :, None]))
        for _ in range(2):
            both = torch.cat([nodes[:, source], nodes[:, target]], dim=2)
            messages = torch.sigmoid(self.gate(both)) * self.send(both)
            nodes = nodes + torch.zeros_like(nodes).index_add(1, target, torch.relu(messages))
        return self.last(nodes.amax(dim=1))


class Convolving(nn.Module):
    """A convolution over features, batch normalisation and pooling; scores are ``[n, 2]``."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(inplace=True),
            nn.MaxPool1d(2), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip

    def forward(self, x):
        return self.inner(x)


def drawn(rows, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 6))
    values[:, :2] = rng.integers(0, CODES, (rows, 2))
    return values.astype(np.float32)


def scores_of(kind, output=None):
    torch.manual_seed(3)
    module = kind()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
    module(torch.tensor(drawn(64, 9)))  # batch normalisation sees a batch
    return TorchScores(module.eval(), output)


def over_orders(scores, row, background, owner):
    """What each player adds on joining, mean over all orders and background rows."""
    count = max(owner) + 1
    known, values = {}, np.zeros(count)
    orders = list(itertools.permutations(range(count)))
    for inside in itertools.product((False, True), repeat=count):
        mixed = np.where(np.array(inside)[owner], row, background)
        known[inside] = scores(mixed).mean()
    for order in orders:
        inside = [False] * count
        for player in order:
            before = known[tuple(inside)]
            inside[player] = True
            values[player] += (known[tuple(inside)] - before) / len(orders)
    return values


@pytest.mark.parametrize("kind", [Embedded, Attending, Recurrent, Passing, Convolving])
@pytest.mark.parametrize("grouped", [False, True])
def test_values_are_those_of_the_definition(kind, grouped):
    scores = scores_of(kind, 1 if kind is Convolving else None)
    background, cases = Background(NAMES, drawn(8, 0)), drawn(3, 1)
    players = Players.grouped(NAMES, {"place": ["country", "b"], "ac": ["a", "c"]})
    players = players if grouped else Players.single(NAMES)
    found = PlayerExplainer(scores, background, players).explain(cases)
    for row, values in zip(cases, found.values, strict=True):
        expected = over_orders(scores, row, background.values, np.array(players.owner))
        np.testing.assert_allclose(values, expected, atol=2e-6)
        assert np.abs(values).max() > 1e-2
    assert found.gap < 1e-9


@pytest.mark.parametrize("kind", [Embedded, Attending, Passing])
def test_drawn_values_are_near_those_of_the_definition(kind):
    scores = scores_of(kind)
    background, cases = Background(NAMES, drawn(8, 0)), drawn(3, 1)
    options = ExplainOptions(method="sampled", evaluations=2_000)
    found = PlayerExplainer(scores, background, options=options).explain(cases)
    exact = PlayerExplainer(scores, background).explain(cases)
    assert (np.abs(found.values - exact.values) <= 4 * found.errors + 1e-6).all()
    assert np.linalg.norm(found.values - exact.values) < 0.1 * np.linalg.norm(exact.values)


def test_an_id_is_one_player_and_is_never_between_two_ids():
    """An embedding would be asked for a row it does not have if ids were averaged or moved."""
    seen = set()
    scores = scores_of(Embedded)
    scores.module.tables[0].register_forward_pre_hook(
        lambda table, given: seen.update(given[0].unique().tolist())
    )
    background, cases = Background(NAMES, drawn(8, 0)), drawn(3, 1)
    found = PlayerExplainer(scores, background).explain(cases)
    assert seen == {*background.values[:, 0].tolist(), *cases[:, 0].tolist()}
    assert found.values.shape == (3, 6)


def test_one_hot_columns_are_one_player_with_the_value_of_the_id_they_stand_for():
    torch.manual_seed(0)
    table = nn.Linear(CODES, 3, bias=False)
    rest = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))

    class Coded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.rest = nn.Embedding(CODES, 3), rest
            self.table.weight.data = table.weight.data.T.clone()

        def forward(self, x):
            return self.rest(torch.cat([self.table(x[:, 0].long()), x[:, 1:]], dim=1))

    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.rest = table, rest

        def forward(self, x):
            return self.rest(torch.cat([self.table(x[:, :CODES]), x[:, CODES:]], dim=1))

    def wide(rows):
        hot = np.eye(CODES, dtype=np.float32)[rows[:, 0].astype(int)]
        return np.concatenate([hot, rows[:, 1:]], axis=1)

    few = drawn(8, 0)[:, [0, 2, 3]], drawn(4, 1)[:, [0, 2, 3]]
    by_id = PlayerExplainer(
        TorchScores(Coded().eval()), Background(("merchant", "a", "b"), few[0])
    ).explain(few[1])
    hot = tuple(f"merchant={code}" for code in range(CODES))
    names = (*hot, "a", "b")
    by_column = PlayerExplainer(
        TorchScores(Columns().eval()),
        Background(names, wide(few[0])),
        Players.grouped(names, {"merchant": hot}),
    ).explain(wide(few[1]))
    assert by_column.players == by_id.players
    np.testing.assert_allclose(by_column.values, by_id.values, atol=1e-6)
