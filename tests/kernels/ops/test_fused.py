"""Fused operators equal torch's, with their gradients; what they cannot do they refuse."""

from __future__ import annotations

import copy
import json

import numba
import numpy as np
import pytest
import torch
from torch import nn

from kernels.ops.fused.adamw import FusedAdamW
from kernels.ops.fused.chain import Chain
from kernels.ops.fused.folding import FoldingError, folded
from kernels.ops.fused.functions import functions_of
from kernels.ops.fused.reference import chain
from kernels.ops.fused.steps import BINARY, UNARY, Operand, Step
from tests.benchmarks import fusion

# Few steps: compiling them in two directions takes most of the time of these tests.
SHORT = Chain(
    [Step("mul", Operand(0)), Step("tanh"), Step("add", Operand(1)), Step("maximum", Operand(2))]
)


def tensors(dtype, *, learned=False):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 5), (3, 4, 5), (5,), (4, 1))
    made = [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    made[1] = made[1].abs() + 0.5
    return [t.requires_grad_(learned) for t in made]


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_every_step_has_the_value_and_slopes_of_torchs(name):
    """As Python, without compiling: fourteen loops would take half a minute."""
    function = functions_of(np.float64)[name].py_func
    x = torch.tensor([-3.0, -0.5, 0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([0.5, -0.5, 1.5, 0.3, -2.0], dtype=torch.float64, requires_grad=True)
    step = Step(name, Operand(0)) if name in BINARY else Step(name)
    wanted = chain([step], x, [a])
    slopes = torch.autograd.grad(wanted.sum(), [x, a], allow_unused=True)
    found = [
        function(np.float64(v), np.float64(o)) for v, o in zip(x.tolist(), a.tolist(), strict=True)
    ]
    columns = torch.tensor(found, dtype=torch.float64).T
    torch.testing.assert_close(columns[0], wanted, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(columns[1], slopes[0], rtol=1e-13, atol=1e-14)
    if slopes[1] is not None:
        torch.testing.assert_close(columns[2], slopes[1], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradients_are_those_of_the_values(backend):
    """All four tensors learn; one is a row, one is spread over rows and columns."""
    given = tensors(torch.float64, learned=True)
    assert torch.autograd.gradcheck(lambda *t: SHORT(*t, backend=backend), given)


def test_a_chain_equals_its_reference_in_float64():
    given = tensors(torch.float64)
    for x in (given[0], given[0].transpose(0, 2).contiguous().transpose(0, 2), given[0] * 30):
        found, wanted = (SHORT(x, *given[1:], backend=b) for b in ("cpu", "reference"))
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-14)
    empty = torch.zeros(0, 5, dtype=torch.float64)
    assert SHORT(empty, empty, given[2], empty).shape == (0, 5)


def test_polynomials_of_float32_are_exact_to_its_rounding():
    """Over their range, with infinities and NaN; one loop for all, which is compiled once."""
    functions = functions_of(np.float32)
    exp, tanh, sigmoid = (functions[name] for name in ("exp", "tanh", "sigmoid"))

    @numba.njit(error_model="numpy")
    def fill(x, out):
        for i in range(len(x)):
            out[0, i] = exp(x[i], x[i])[0]
            out[1, i] = tanh(x[i], x[i])[0]
            out[2, i] = sigmoid(x[i], x[i])[0]

    ends = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan])
    x = torch.cat([torch.linspace(-80, 87, 100_001), torch.linspace(-1, 1, 10_001), ends])
    out = torch.empty(3, len(x))
    fill(x.numpy(), out.numpy())
    finite = x.isfinite()
    wide = x.double()[finite]
    errors = [
        (out[0][finite] / wide.exp() - 1).abs().max(),
        (out[1][finite] - wide.tanh()).abs().max(),
        (out[2][finite] / wide.sigmoid() - 1).abs().max(),
    ]
    assert all(float(e) < 4e-7 for e in errors), errors
    assert out[:, -1].isnan().all()
    assert out[:, -3].tolist() == [torch.inf, 1.0, 1.0]
    assert out[:, -2].tolist() == pytest.approx([0.0, -1.0, 0.0], abs=1e-30)


def test_a_row_of_many_and_threads_give_the_same():
    mixed = Chain(fusion.FEW)
    x, scale, bias = torch.randn(3_000, 64), torch.randn(3_000, 64), torch.randn(64)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(mixed(x, scale, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], mixed(x, scale, bias, backend="reference"))


def test_other_formats_go_to_the_reference():
    x = torch.randn(4, 5)
    simple = Chain([Step("add", Operand(0)), Step("relu")])
    half = simple(x.bfloat16(), torch.ones(5, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="take backend=None"):
        simple(x.bfloat16(), torch.ones(5), backend="cpu")
    with pytest.raises(ValueError, match="cannot run on meta"):
        simple(x.to("meta"), torch.ones(5, device="meta"), backend="cpu")


def test_what_is_no_chain_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        Chain([])
    with pytest.raises(ValueError, match="names 3 operands, got 0"):
        SHORT(torch.ones(3))
    with pytest.raises(ValueError, match="give the larger tensor as x"):
        Chain([Step("add", Operand(0))])(torch.ones(3), torch.ones(2, 3))
    for given, said in (
        (("sin",), "is unknown"),
        (("relu", 1.0), "takes no other"),
        (("add",), "needs another"),
        (("add", float("nan")), "finite"),
        (("add", Operand(9)), "at most 4"),
    ):
        with pytest.raises(ValueError, match=said):
            Step(*given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_steps_as_torchs_and_shares_its_state(dtype):
    """Two groups, channels last, a scalar, gradients of another layout; states go both ways."""
    torch.manual_seed(0)
    start = [torch.randn(5, 7), torch.randn(3, 2, 4, 4), torch.randn(()), torch.randn(3)]
    start = [p.to(dtype) for p in start]
    start[1] = start[1].to(memory_format=torch.channels_last)
    kinds = {"torch": torch.optim.AdamW, "own": FusedAdamW}
    ends = {}
    for first, begun in kinds.items():
        parameters = [nn.Parameter(p.clone()) for p in start]
        groups = [
            {"params": parameters[:1], "weight_decay": 0.1},
            {"params": parameters[1:], "weight_decay": 0.0},
        ]
        optimizer = begun(groups, lr=0.05, betas=(0.8, 0.95))
        for step in range(12):
            if step == 6:  # the other one goes on
                state = copy.deepcopy(optimizer.state_dict())
                other = next(kind for name, kind in kinds.items() if name != first)
                optimizer = other(groups, lr=0.05, betas=(0.8, 0.95))
                optimizer.load_state_dict(state)
            generator = torch.Generator().manual_seed(step)
            for index, p in enumerate(parameters):
                p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
                if index == 3 and step % 2:
                    p.grad = None
            optimizer.step()
        ends[first] = parameters
    plain = [nn.Parameter(p.clone()) for p in start]
    groups = [{"params": plain[:1], "weight_decay": 0.1}, {"params": plain[1:], "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.8, 0.95), foreach=False)
    for step in range(12):
        generator = torch.Generator().manual_seed(step)
        for index, p in enumerate(plain):
            p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
            if index == 3 and step % 2:
                p.grad = None
        optimizer.step()
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6
    for parameters in ends.values():
        for a, b in zip(parameters, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_adamw_goes_on_from_moments_that_lost_their_strides():
    """As they come from a file; gradients come in rows, too."""
    torch.manual_seed(0)
    start = torch.randn(3, 2, 4, 4).to(memory_format=torch.channels_last)
    ends = []
    for through_file in (False, True):
        parameter = nn.Parameter(start.clone(memory_format=torch.preserve_format))
        optimizer = FusedAdamW([parameter], lr=0.05)
        for step in range(4):
            if step == 2:
                state = copy.deepcopy(optimizer.state_dict())
                if through_file:
                    held = state["state"][0]
                    held |= {name: held[name].contiguous() for name in ("exp_avg", "exp_avg_sq")}
                optimizer = FusedAdamW([parameter], lr=0.05)
                optimizer.load_state_dict(state)
            generator = torch.Generator().manual_seed(step)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        moments = [optimizer.state[parameter][name] for name in ("exp_avg", "exp_avg_sq")]
        assert {each.stride() for each in (parameter, *moments)} == {start.stride()}
        ends.append([parameter.detach(), *moments])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def test_adamw_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="fused=True"):
        FusedAdamW([nn.Parameter(torch.ones(3, dtype=torch.bfloat16))])
    with pytest.raises(ValueError, match="gaps or overlaps"):
        FusedAdamW([nn.Parameter(torch.ones(4, 4)[:, ::2])])
    with pytest.raises(ValueError, match="must not be negative"):
        FusedAdamW([nn.Parameter(torch.ones(3))], lr=-1.0)
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.sparse_coo_tensor([[0]], [1.0], (3,), check_invariants=True)
    with pytest.raises(ValueError, match="SparseAdam"):
        FusedAdamW([parameter]).step()


class Net(nn.Module):
    """Batch norms that can be folded, and four that cannot."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 1)
        self.after_shared = nn.BatchNorm2d(4)
        self.read_twice = nn.Conv2d(4, 4, 1)
        self.after_twice = nn.BatchNorm2d(4)
        self.stateless = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        )
        self.first = nn.BatchNorm2d(3)
        self.linear = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
        self.last = nn.ReLU()

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(self.first(x))))
        x = self.after_shared(self.shared(self.shared(x)))
        y = self.read_twice(x)
        x = self.after_twice(y) + y
        x = self.stateless(x)
        return self.last(self.linear(x.mean((2, 3))))


def test_batch_norms_are_folded_where_that_is_exact():
    torch.manual_seed(0)
    model = Net().double()
    for _ in range(3):
        model(torch.randn(8, 3, 6, 6, dtype=torch.float64) * 3 + 1)
    with pytest.raises(FoldingError, match=r"model.eval\(\)"):
        folded(model)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    short = folded(model, x)
    torch.testing.assert_close(short(x), model(x), rtol=1e-12, atol=1e-12)
    left = [n for n, m in short.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert set(left) == {"after_shared", "after_twice", "stateless.1", "first"}
    assert sum(n.target is torch.relu_ for n in short.graph.nodes) == 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("layer", "norm", "shape", "folds"),
    [
        (nn.Linear(3, 5), 5, (4, 3), True),
        (nn.Linear(3, 5), 4, (2, 4, 3), False),
        (nn.Linear(3, 5), 5, (2, 5, 3), False),  # as long as it is wide: only dimensions tell
        (nn.Conv1d(3, 5, 1), 5, (2, 3, 5), True),
        (nn.Conv1d(3, 5, 1), 5, (3, 5), False),  # one sample, whose places are normalised
        (nn.Conv1d(3, 5, 1), 4, (3, 4), False),
    ],
)
def test_a_norm_of_another_axis_than_the_channels_stays(layer, norm, shape, folds):
    torch.manual_seed(0)
    layer.reset_parameters()
    last = nn.BatchNorm1d(norm)
    with torch.no_grad():
        for tensor in (last.weight, last.bias, last.running_mean, last.running_var):
            tensor.uniform_(0.5, 2.0)
    model, x = nn.Sequential(layer, last).double().eval(), torch.randn(shape).double()
    short = folded(model, x)
    torch.testing.assert_close(short(x), model(x), rtol=1e-12, atol=1e-12)
    assert any(isinstance(each, nn.BatchNorm1d) for each in short.modules()) is not folds


def test_without_an_example_norms_after_linear_layers_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).eval()
    nn.init.uniform_(model[1].running_mean)
    short = folded(model)
    for shape in ((4, 3), (2, 5, 3)):
        x = torch.randn(shape)
        assert torch.equal(short(x), model(x))


def test_a_model_without_a_fixed_graph_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(FoldingError, match="no fixed graph"):
        folded(Branching().eval())


def test_the_benchmark_prints_its_keys_and_all_agree(capsys):
    fusion.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"x_chain", "x_conv_bn_inference", "x_adamw", "x_adamw_over_fused"} < result.keys()
    assert all(result[k] > 0 for k in result if k.startswith("x_"))
    for name in ("chain", "conv_bn", "adamw"):
        assert result[f"{name}_max_error"] < 1e-4
    ratio = result["adamw_torch_ms"] / result["adamw_own_ms"]
    assert result["x_adamw"] == pytest.approx(ratio)


def test_a_layer_whose_weights_are_read_elsewhere_or_that_has_hooks_is_not_folded():
    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return nn.functional.linear(self.norm(self.encode(x)), self.encode.weight.t())

    tied = Tied().double().eval()
    hooked = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).double().eval()
    hooked[0].register_forward_hook(lambda _module, _inputs, result: result.relu())
    normed = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 1)), nn.BatchNorm2d(3)
    )
    for model, shape in ((tied, (5, 4)), (hooked, (2, 2, 4, 4)), (normed, (2, 2, 4, 4))):
        model.double().eval()
        norm = next(m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)))
        nn.init.uniform_(norm.running_mean)
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(folded(model, x)(x), model(x), rtol=1e-12, atol=1e-12)
