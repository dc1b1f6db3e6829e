"""Training over branches: equal to what it replaces, refused where the plan says nothing of it."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.privacy.encoding import plain_encoding
from tasks.privacy.federated.branch import Branch, BudgetExhaustedError
from tasks.privacy.federated.branch_work import BranchWork, train_locally
from tasks.privacy.federated.model import FederatedModel
from tasks.privacy.federated.moments import encoding_from, row_sums, signed_log
from tasks.privacy.federated.plan import LocalTraining, Privacy, TrainingPlan
from tasks.privacy.federated.quantise import RangeError
from tasks.privacy.federated.records import ProtocolError, Request
from tasks.privacy.federated.secure_sum import TooFewBranchesError
from tasks.privacy.federated.simulate import simulation
from tasks.privacy.model import ModelError

COLUMNS = ("amount", "hour", "risk")
WEIGHTS = np.array([1.5, -1.0, 0.5])


def parts(branches=4, rows=200, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for place in range(branches):
        x = rng.normal(loc=0.3 * place, scale=[1.0, 5.0, 100.0], size=(rows + 50 * place, 3))
        logit = signed_log(x) @ WEIGHTS - 1
        found.append((x, (rng.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(np.int8)))
    return found


def plan(**changes):
    chosen = {"columns": COLUMNS, "hidden": (4,), "rounds": 3} | changes
    return TrainingPlan(**chosen)


def private_plan(rows, **changes):
    public = plain_encoding(signed_log(np.concatenate([x for x, _ in parts(seed=9)])), COLUMNS)
    public = dataclasses.replace(public, signed_log=True, beyond="clip")
    private = Privacy(rows=rows, **({"rate": 0.3, "noise": 1.0, "learning_rate": 1.0} | changes))
    return plan(hidden=(), rounds=6, private=private, scaling=public)


class TestMoments:
    def test_are_those_of_all_rows_together(self):
        each = parts()
        made = simulation(plan(), each, threshold=3)
        made.training.step()
        expected = encoding_from(COLUMNS, row_sums(np.concatenate([x for x, _ in each])))
        found = made.training.model.encoding
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
        np.testing.assert_allclose(found.scale, expected.scale, atol=1e-6)
        together = found.encode(np.concatenate([x for x, _ in each]))
        np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(together.std(axis=0), 1, atol=1e-4)

    def test_are_told_once(self):
        """A second sum, over other branches, would differ from the first by one branch's."""
        made = simulation(plan(), parts(), threshold=3)
        made.training.step()
        with pytest.raises(BudgetExhaustedError, match="1 sums of task 'moments', all answered"):
            made.training._summed("moments", b"")
        assert len(made.training.step().survivors) == 4

    @pytest.mark.parametrize("stage", ["confirm", "reveal"])
    def test_that_were_sent_are_not_told_again_though_the_sum_was_given_up(self, stage):
        def leaves(at, number, place):
            return number == 0 and at == stage and place < 2

        made = simulation(plan(), parts(), threshold=3, leaves=leaves)
        with pytest.raises(TooFewBranchesError, match=f"given up at '{stage}'"):
            made.training.step()
        with pytest.raises(BudgetExhaustedError, match="told once"):
            made.training.step()

    def test_may_be_asked_for_again_when_nobody_had_told_them(self):
        def leaves(at, number, place):
            return number == 0 and at == "letters" and place < 2

        made = simulation(plan(), parts(), threshold=3, leaves=leaves)
        with pytest.raises(TooFewBranchesError, match="given up at 'letters'"):
            made.training.step()
        assert len(made.training.step().survivors) == 4

    def test_a_constant_column_stays_finite(self):
        each = [(np.column_stack([x[:, :2], np.full(len(x), 7.0)]), y) for x, y in parts()]
        made = simulation(plan(), each, threshold=3)
        made.training.step()
        assert made.training.model.encoding.scale[2] == 1
        assert np.isfinite(made.training.model.logits(each[0][0])).all()


class TestAverage:
    def test_is_the_mean_of_local_trainings_weighted_by_rows(self):
        each, agreed = parts(), plan()
        made = simulation(agreed, each, threshold=3)
        report = made.training.step()
        encoding, network = made.training.model.encoding, agreed.network
        start = network.initial(agreed.seed)
        rows = np.array([len(y) for _, y in each])
        trained, losses = [], []
        for branch, (x, y) in zip(made.branches, each, strict=True):
            inputs = encoding.encode(x)
            losses.append(network.gradient(start, inputs, y.astype(float))[0])
            trained.append(
                train_locally(
                    network, start, inputs, y.astype(float), agreed.local,
                    seed=(agreed.seed, 1, *branch.work.name.encode()), progress=1 / 3,
                )
            )  # fmt: skip
        expected = np.average(trained, axis=0, weights=rows)
        np.testing.assert_allclose(made.training.parameters, expected, atol=2.0**-24)
        assert report.rows == rows.sum()
        assert report.loss == pytest.approx(sum(losses) / rows.sum(), abs=1e-6)
        assert report.epsilon == math.inf

    def test_is_bit_equal_to_the_plain_sum_of_steps(self):
        made = simulation(plan(), parts(), threshold=3)
        training = made.training
        training.step()
        content = training._content()
        twin = simulation(plan(), parts(), threshold=3)
        expected = sum(branch.work.steps("average", 2, content) for branch in twin.branches)
        training.step()
        np.testing.assert_array_equal(training.last.steps, expected)

    def test_goes_on_without_those_who_leave(self):
        def leaves(stage, number, place):
            return number == 2 and place == 1 and stage == "values"

        made = simulation(plan(), parts(), threshold=3, leaves=leaves)
        reports = [made.training.step() for _ in range(3)]
        assert [len(report.survivors) for report in reports] == [4, 3, 4]
        assert reports[1].left == ("branch-001",)
        assert reports[0].rows - reports[1].rows == 250
        assert made.training.finished

    def test_a_round_of_too_few_leaves_the_model_as_it_was(self):
        def leaves(stage, number, place):
            return number == 2 and place < 2

        made = simulation(plan(), parts(), threshold=3, leaves=leaves)
        made.training.step()
        before = made.training.parameters.copy()
        with pytest.raises(TooFewBranchesError, match="Start the missing ones"):
            made.training.step()
        np.testing.assert_array_equal(made.training.parameters, before)
        report = made.training.step()
        assert len(report.survivors) == 4
        assert report.round == 3
        assert made.training.finished

    def test_learns(self):
        made = simulation(plan(rounds=12), parts(rows=600), threshold=3)
        losses = [made.training.step().loss for _ in range(12)]
        assert losses[-1] < 0.87 * losses[0]

    def test_a_value_beyond_the_range_is_refused_with_branch_and_parameter(self):
        agreed = plan(limit=1e-4)
        made = simulation(agreed, parts(), threshold=3)
        with pytest.raises(RangeError, match="branch 'branch-000': change of layer 0") as caught:
            made.training.step()
        assert caught.value.parameter.startswith("change of layer 0")


class TestPrivate:
    def test_epsilon_is_that_of_the_accountant_and_grows(self):
        each = parts()
        rows = sum(len(y) for _, y in each)
        made = simulation(private_plan(rows), each, threshold=3)
        reports = [made.training.step() for _ in range(6)]
        spent = [report.epsilon for report in reports]
        assert spent == sorted(spent)
        assert spent[-1] == made.training.plan.epsilon < 20
        assert all(math.isnan(report.loss) and report.rows == 0 for report in reports)

    def test_noise_in_a_sum_of_the_fewest_is_at_least_what_was_accounted(self):
        """Honest branches of the smallest complete sum, the colluding ones' noise taken away."""
        each = parts(branches=7, rows=30)
        agreed = private_plan(5_000, rate=1e-9)  # nobody is drawn: what is left is noise
        made = simulation(agreed, each, threshold=5, colluding=2)
        content = made.training._content()
        sums = [
            sum(branch.work.steps("gradient", i, content) for branch in made.branches[:3])
            for i in range(400)
        ]
        deviation = np.std(sums) * 2.0**-agreed.bits
        draws = 400 * agreed.network.parameters
        assert deviation == pytest.approx(1.0, rel=5 / math.sqrt(2 * draws))
        assert agreed.noise_deviation(made.training.roster) > 2.0**agreed.bits / math.sqrt(3)

    def test_no_row_changes_the_steps_by_more_than_the_noise_covers(self):
        each = parts(rows=50)
        agreed = private_plan(5_000, rate=1.0, noise=1e-12)
        content = np.zeros(agreed.network.parameters).tobytes()
        roster = simulation(agreed, each, threshold=3).training.roster
        x, y = each[0]

        def steps(keep):
            return BranchWork(agreed, roster, "branch-000", x[keep], y[keep]).steps(
                "gradient", 0, content
            )

        everything = np.arange(len(y))
        sensitivity = 2.0**agreed.bits + math.sqrt(agreed.network.parameters)
        whole = steps(everything)
        for row in range(20):
            assert np.linalg.norm(whole - steps(everything != row)) <= sensitivity

    def test_exact_sums_are_not_in_a_private_plan(self):
        with pytest.raises(ValueError, match=r"needs plan\.scaling from public rows"):
            plan(private=Privacy(rows=100))
        each = parts()
        made = simulation(private_plan(1_000), each, threshold=3)
        with pytest.raises(ProtocolError, match="not 'average'"):
            made.branches[0].answer(Request("keys", 0, "average"))
        with pytest.raises(ProtocolError, match="not 'moments'"):
            made.branches[0].work.steps("moments", 0, b"")

    def test_learns(self):
        each = parts(rows=2_000)
        rows = sum(len(y) for _, y in each)
        made = simulation(private_plan(rows, rate=0.5), each, threshold=3)
        for _ in range(6):
            made.training.step()
        x, y = parts(rows=500, seed=5)[0]
        logits = made.training.model.logits(x)
        assert logits[y == 1].mean() > logits[y == 0].mean() + 0.5


class TestBranch:
    def test_answers_no_sum_twice_and_no_more_than_the_plan_has(self):
        made = simulation(plan(rounds=1), parts(), threshold=3)
        made.training.step()
        branch = made.branches[0]
        with pytest.raises(ProtocolError, match="sum 1 comes again: no mask serves twice"):
            branch.answer(Request("keys", 1, "average"))
        with pytest.raises(BudgetExhaustedError, match="1 sums of task 'average', all answered"):
            made.training.step()

    def test_answers_only_the_sum_that_was_begun(self):
        branch = simulation(plan(), parts(), threshold=3).branches[0]
        with pytest.raises(ProtocolError, match="sum -1 is the last begun"):
            branch.answer(Request("values", 0, "moments"))
        branch.answer(Request("keys", 0, "moments"))
        for other in (Request("confirm", 1, "moments"), Request("confirm", 0, "average")):
            with pytest.raises(ProtocolError, match="sum 0 is the last begun"):
                branch.answer(other)
        with pytest.raises(ProtocolError, match="no stage 'secrets'"):
            branch.answer(Request("secrets", 0, "moments"))

    def test_content_is_checked(self):
        made = simulation(plan(), parts(), threshold=3)
        work = made.branches[0].work
        good = np.concatenate([made.training.parameters, np.ones(6)])
        work.steps("average", 1, good.tobytes())
        bad = good.copy()
        bad[3] = math.nan
        for content in (b"", good.tobytes()[:-1], bad.tobytes()):
            with pytest.raises(ProtocolError, match="do not fit it"):
                work.steps("average", 1, content)
        with pytest.raises(ProtocolError, match=r"scales .* must be positive"):
            work.steps("average", 1, np.append(good[:-1], 0.0).tobytes())

    def test_rows_and_identity_are_checked(self):
        each = parts()
        roster = simulation(plan(), each, threshold=3).training.roster
        x, y = each[0]
        hole = x.copy()
        hole[0, 0] = math.nan
        for rows, labels, said in (
            (x[:, :2], y, r"rows are \[n, 3\]"),
            (x[:0], y[:0], "0 rows"),
            (hole, y, "must be finite"),
            (x, y + 1, "labels 0 or 1"),
        ):
            with pytest.raises(ValueError, match=said):
                BranchWork(plan(), roster, "branch-000", rows, labels)
        work = BranchWork(plan(), roster, "branch-000", x, y)
        with pytest.raises(ValueError, match="none of the roster"):
            Branch(roster, work, Ed25519PrivateKey.generate(), bytes(32))


class TestModel:
    def test_comes_back_from_json(self):
        made = simulation(plan(), parts(), threshold=3)
        made.training.step()
        model, x = made.training.model, parts()[1][0]
        again = FederatedModel.from_dict(json.loads(json.dumps(model.to_dict())))
        np.testing.assert_array_equal(again.logits(x), model.logits(x))
        with pytest.raises(ValueError, match="finite parameters"):
            FederatedModel.from_dict(model.to_dict() | {"parameters": [math.nan]})

    def test_without_hidden_layers_can_be_scored_encrypted(self):
        made = simulation(plan(hidden=()), parts(), threshold=3)
        made.training.step()
        model, x = made.training.model, parts()[1][0]
        scores = model.for_encrypted_scoring().score(x)
        np.testing.assert_allclose(scores[:, 0], model.logits(x), rtol=1e-12)
        deep = simulation(plan(), parts(), threshold=3)
        deep.training.step()
        with pytest.raises(ModelError, match=r"train it with hidden=\(\)"):
            deep.training.model.for_encrypted_scoring()


class TestPlan:
    def test_comes_back_from_json_and_its_digest_tells_all_apart(self):
        agreed = private_plan(1_000)
        again = TrainingPlan.from_dict(agreed.to_dict())
        assert again.digest == agreed.digest
        changed = [
            dataclasses.replace(agreed, rounds=7),
            dataclasses.replace(agreed, private=dataclasses.replace(agreed.private, noise=0.99)),
            plan(),
            plan(local=LocalTraining(epochs=2)),
        ]
        assert len({agreed.digest} | {one.digest for one in changed}) == 5
        assert TrainingPlan.from_dict(plan().to_dict()) == plan()

    def test_sums_that_could_wrap_are_refused(self):
        with pytest.raises(ValueError, match=r"task 'average': .* take \d+ bits fewer"):
            simulation(plan(bits=48), parts(), threshold=3)
        with pytest.raises(ValueError, match="gradients and noise do not fit"):
            simulation(private_plan(1_000, noise=1e12), parts(), threshold=3)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (lambda: LocalTraining(epochs=0), "positive"),
            (lambda: LocalTraining(momentum=1.0), "momentum"),
            (lambda: Privacy(rows=10, clip=0), "positive"),
            (lambda: Privacy(rows=10, rate=0), "rate"),
            (lambda: Privacy(rows=10, momentum=1), "momentum"),
            (lambda: Privacy(rows=10, delta=0.2), r"below 1 / rows = 1\.0e-01"),
            (lambda: plan(rounds=0), "at least 1"),
            (lambda: plan(scaling=plain_encoding([[0.0], [1.0]])), "other columns"),
        ],
    )
    def test_settings_name_the_fix(self, wrong, said):
        with pytest.raises(ValueError, match=said):
            wrong()

    def test_there_is_no_model_before_the_first_round(self):
        made = simulation(plan(), parts(), threshold=3)
        with pytest.raises(RuntimeError, match="no model before"):
            _ = made.training.model
