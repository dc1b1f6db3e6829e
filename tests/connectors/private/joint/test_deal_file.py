"""Dealt files that are changed, cut short, or of somebody else are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from connectors.private.joint.certificates import read_public_key
from connectors.private.joint.deal_file import DIGEST_BYTES, LENGTH, MAGIC, DealFile, DealHead
from connectors.private.joint.dealer import DealConfig, deal, make_dealer_key
from connectors.private.joint.errors import DealError, PeerRefusedError
from connectors.private.joint.party import run_party
from connectors.private.owner_only import write_owner_only
from tasks.privacy.encoding import plain_encoding
from tasks.privacy.model import linear_model
from tasks.privacy.shares.compile import JointOptions, compile_joint
from tasks.privacy.shares.material import SEED_BYTES
from tasks.privacy.shares.plan import PlanError
from tasks.privacy.shares.sizes import MOST_BYTES, most_rows, step_bytes
from tests.connectors.private.joint.houses import BATCH, session
from tests.tasks.privacy.models import rows


def wide(columns):
    """A linear model of many columns, all of them with party 1."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(20, columns))
    model = linear_model(plain_encoding(raw, margin=2.0), rng.normal(size=columns), 0.0)
    return compile_joint(model, (), raw, JointOptions(tolerance=1e-2))


class TestDealFile:
    def test_a_changed_byte_anywhere_is_noticed(self, houses, joint):
        configs = houses.parties(joint, 2 * BATCH, timeout_s=1.0)
        path = configs[0].deal
        whole = path.read_bytes()
        for place in [0, 9, 40, len(whole) // 4, len(whole) - 8 * 2 * BATCH - 30]:
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(DealError):
                run_party(configs[0], rows(5)[:, :3])

    def test_a_changed_batch_is_noticed_by_both(self, houses, joint, caplog):
        """Which batch of which file, the log of its own side says and not the other side."""
        configs = houses.parties(joint, 2 * BATCH)
        content = bytearray(configs[0].deal.read_bytes())
        content[-5] ^= 1
        configs[0].deal.write_bytes(content)
        found = session(configs, rows(2 * BATCH))
        assert [ended.code for ended in found] == ["deal", "deal"]
        (own,) = [ended for ended in found if isinstance(ended, DealError)]
        (told,) = [ended for ended in found if isinstance(ended, PeerRefusedError)]
        assert f"batch 1 of {configs[0].deal}" in str(own)
        assert str(own) in caplog.text
        assert str(told) == f"the other party refused (deal): {DealError.told}"

    @pytest.mark.parametrize("cut", [3, 30, 200, -1])
    def test_a_short_file_is_refused(self, houses, joint, cut):
        config = houses.parties(joint, BATCH)[0]
        whole = config.deal.read_bytes()
        config.deal.write_bytes(whole[:cut])
        with pytest.raises(DealError):
            run_party(config, rows(5)[:, :3])

    def test_a_missing_file_is_refused(self, houses, joint):
        config = houses.parties(joint, BATCH)[0]
        config.deal.unlink()
        with pytest.raises(DealError, match="fetch the file from the dealer"):
            run_party(config, rows(5)[:, :3])

    def test_another_dealer_is_refused(self, houses, joint, tmp_path):
        config = houses.parties(joint, BATCH)[0]
        other, _ = make_dealer_key(tmp_path)
        with pytest.raises(DealError, match="not signed by the dealer"):
            run_party(dataclasses.replace(config, dealer_key=other), rows(5)[:, :3])

    def test_deals_are_never_written_over(self, houses, joint, tmp_path):
        config = DealConfig(joint.plan, houses.dealer_keys[1], tmp_path, 5, batch_rows=BATCH)
        dealt = deal(config)
        assert dealt.rows == BATCH
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in dealt.files)
        with pytest.raises(DealError, match="is there already"):
            deal(config)

    def test_batches_of_too_many_rows_are_refused_with_how_many_go(self, houses, tmp_path):
        """In smaller ones the same rows can be dealt; who asks for no number gets such."""
        joint = wide(2_000)
        with pytest.raises(PlanError, match=r"batches of at most \d+ rows") as refused:
            DealConfig(joint.plan, houses.dealer_keys[1], tmp_path, 50_000, batch_rows=50_000)
        most = int(str(refused.value).split("--batch-rows ")[1].rstrip(")"))
        for chosen in (most, None):
            config = DealConfig(joint.plan, houses.dealer_keys[1], tmp_path, 50_000, chosen)
            assert 1 < config.batches < 50
            assert step_bytes(joint.plan, config.rows_of_batch) <= MOST_BYTES

    def test_a_deal_of_too_many_rows_is_refused_before_anything_is_read(self, houses, tmp_path):
        """Signed by the trusted dealer, but by one without this limit."""
        joint = wide(2_000)
        head = DealHead("0" * 32, 0, joint.plan.digest, 1 << 20, 1, "another dealer").to_bytes()
        signed = MAGIC + LENGTH.pack(len(head)) + head + bytes(SEED_BYTES + DIGEST_BYTES)
        key = load_pem_private_key(houses.dealer_keys[1].read_bytes(), None)
        path = tmp_path / "party-0.deal"
        write_owner_only(path, signed + key.sign(signed))
        dealer = read_public_key(houses.dealer_keys[0])
        with pytest.raises(PlanError, match="--batch-rows"):
            DealFile(path, joint.plan, 0, dealer)

    def test_a_model_of_too_many_weights_is_refused(self):
        plan = dataclasses.replace(wide(2_000).plan, scores=8_000)
        with pytest.raises(PlanError, match="fewer columns"):
            most_rows(plan)

    @pytest.mark.parametrize("wrong", [{"rows": 0}, {"batch_rows": 0}, {"dealer": "x" * 101}])
    def test_settings_name_the_fix(self, joint, tmp_path, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DealConfig(joint.plan, tmp_path, tmp_path, **{"rows": 1} | wrong)
