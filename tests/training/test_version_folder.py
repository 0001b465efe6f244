import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
import transformers

from claasbot import adapter_files
from claasbot.errors import AdapterDamaged, JobRefused
from claasbot.training.optimizer import AdamState
from claasbot.training.policy import Policy
from claasbot.training.version_folder import put_on_parent, write_version
from tests.training.conftest import RECIPE, make_job


@pytest.fixture
def written(policy: Policy, tmp_path: Path) -> Path:
    """A version with random weights and moments."""
    adapter = policy.wear(RECIPE)
    draw = torch.Generator().manual_seed(9)
    adapter.weights.copy_(torch.randn(adapter.weights.shape, generator=draw) * 0.1)
    state = AdamState.fresh(adapter.weights)
    state.n_steps = 12
    state.first.copy_(torch.randn(state.first.shape, generator=draw))
    state.second.copy_(torch.rand(state.second.shape, generator=draw))
    write_version(adapter, state, make_job(policy, tmp_path), parent="base", base_name="tiny")
    return tmp_path / "v1"


def test_peft_reads_the_folder_and_gets_our_logits(policy: Policy, model_folder: Path, written: Path) -> None:
    ids = torch.tensor([[1, 20, 30, 40, 50, 60]])
    base = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    with torch.no_grad():
        ours = policy.model(input_ids=ids).logits
        without = base(input_ids=ids).logits
        theirs = peft.PeftModel.from_pretrained(base, written).eval()(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert not torch.allclose(ours, without, atol=1e-2)


def test_weights_and_optimizer_state_come_back_bit_for_bit(policy: Policy, written: Path, tmp_path: Path) -> None:
    weights = policy.adapter.weights.clone()
    policy.adapter.start_fresh(0)
    parent = put_on_parent(policy.adapter, make_job(policy, tmp_path, parent_folder=str(written)))
    assert parent.name == "p1.v1"
    assert torch.equal(policy.adapter.weights, weights)
    assert parent.state.n_steps == 12
    again = make_job(policy, tmp_path, folder=str(tmp_path / "again"), job_id="b" * 24)
    write_version(policy.adapter, parent.state, again, parent="base", base_name="tiny")
    one, two = adapter_files.verify(written), adapter_files.verify(tmp_path / "again")
    assert one.files == two.files
    assert set(one.files) == {"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"}


def test_the_config_lists_its_layers_in_order(written: Path) -> None:
    """PEFT writes them in an order that depends on PYTHONHASHSEED; a job that runs again would differ by it."""
    config = json.loads((written / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(RECIPE.target_modules)
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, "tiny")


def test_a_parent_of_another_scaling_is_refused(policy: Policy, written: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, lora_alpha=32)
    with pytest.raises(JobRefused, match="lora_alpha 8, the recipe says 32"):
        put_on_parent(policy.wear(recipe), make_job(policy, tmp_path, parent_folder=str(written), recipe=recipe))


def test_a_truncated_parent_is_refused_with_its_file(policy: Policy, written: Path, tmp_path: Path) -> None:
    weights = written / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterDamaged, match=r"adapter_model\.safetensors hashes to"):
        put_on_parent(policy.adapter, make_job(policy, tmp_path, parent_folder=str(written)))


def test_a_parent_folder_that_is_gone_is_refused(policy: Policy, tmp_path: Path) -> None:
    policy.wear(RECIPE)
    with pytest.raises(AdapterDamaged, match=r"no readable manifest\.json"):
        put_on_parent(policy.adapter, make_job(policy, tmp_path, parent_folder=str(tmp_path / "gone")))


def test_a_parent_of_another_rank_is_refused_by_name_and_shape(policy: Policy, written: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, rank=2)
    with pytest.raises(JobRefused, match=r"parent p1\.v1 has other layers.*\(4, 64\), expected \(2, 64\)"):
        put_on_parent(policy.wear(recipe), make_job(policy, tmp_path, parent_folder=str(written), recipe=recipe))


def test_a_parent_of_another_base_is_refused(policy: Policy, written: Path, tmp_path: Path) -> None:
    job = make_job(policy, tmp_path, parent_folder=str(written), base_revision="f" * 64)
    with pytest.raises(JobRefused, match="rebuild it on the new base"):
        put_on_parent(policy.adapter, job)
