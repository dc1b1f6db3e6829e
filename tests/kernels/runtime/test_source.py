"""Sources of batches: loaders by index, ends and failures with their place."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from kernels.runtime.callbacks import History
from kernels.runtime.runner import run
from kernels.runtime.source import SourceError, from_loader
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights


def loader(rows: int = 40, **options) -> DataLoader:
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return DataLoader(data, batch_size=8, **options)


def test_a_shuffled_loader_goes_on_where_it_was(tmp_path):
    def source():
        return from_loader(loader(shuffle=True, generator=torch.Generator()))

    plan = config(18, every=4)
    whole, again = make_model(), make_model()
    run(whole, source(), squared, plan)
    with pytest.raises(KeyboardInterrupt):
        run(make_model(), source(), squared, plan, [Stop(10)], tmp_path)
    assert run(again, source(), squared, plan, folder=tmp_path).steps == 10
    assert torch.equal(weights(whole), weights(again))


def test_epochs_are_shuffled_each_in_its_way():
    found = from_loader(loader(shuffle=True, generator=torch.Generator()))
    first, second = found(0)[0], found(5)[0]
    assert not torch.equal(first, second)
    assert torch.equal(found(0)[0], first)


def test_what_has_set_epoch_is_told():
    class Sampled:
        def __init__(self):
            self.told = []

        def set_epoch(self, epoch):
            self.told.append(epoch)

        def __iter__(self):
            return iter([batches(self.told[-1])])

    source = Sampled()
    run(make_model(), from_loader(source), squared, config(3))
    assert source.told == [0, 1, 2]


def test_a_loader_without_batches_is_refused():
    with pytest.raises(SourceError, match="no batch at all"):
        run(make_model(), from_loader(loader(3, drop_last=True)), squared, config(1))


def test_a_source_that_ends_early_names_batch_and_step():
    few = [batches(i) for i in range(5)]
    with pytest.raises(SourceError, match="ended before batch 5, which step 3 needs"):
        run(make_model(), few.__getitem__, squared, config(4, batches=2))


def test_an_error_of_the_source_keeps_its_type_and_gets_its_place():
    def broken(index):
        if index == 2:
            raise OSError("the picture is torn")
        return batches(index)

    history = History()
    with pytest.raises(OSError, match="the picture is torn") as found:
        run(make_model(), broken, squared, config(4), [history])
    assert found.value.__notes__ == ["while batch 2 was read for step 3"]
    assert len(history.steps) == 2
