"""Loading from every place, and a user's own model left as it is."""

import pytest
import torch
from tests.tiny import tiny_gpt2, tiny_llama
from torch import nn

from weft.errors import ModelError
from weft.models import load, register_builtin


def test_a_saved_folder_gives_the_same_numbers(tmp_path):
    module = tiny_llama(seed=2)
    module.save_pretrained(tmp_path / "mine")
    loaded, ids = load(tmp_path / "mine"), torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.forward({"tokens": ids}), module(ids).logits)
    assert loaded.name == "mine" and loaded.tokens is None and not loaded.module.training


def test_dtype_and_name_are_taken(tmp_path):
    tiny_gpt2().save_pretrained(tmp_path / "mine")
    loaded = load(tmp_path / "mine", dtype="float64", name="other")
    assert loaded.card.dtype == "float64" and loaded.card.name == "other"


def test_a_dtype_that_is_none_is_refused(tmp_path):
    tiny_gpt2().save_pretrained(tmp_path / "mine")
    with pytest.raises(ModelError, match="'float31' is no dtype"):
        load(tmp_path / "mine", dtype="float31")


def test_a_name_that_is_nothing_says_what_was_tried():
    with pytest.raises(ModelError, match=r"cannot load 'no/such-model'.*HF_HUB_OFFLINE is set"):
        load("no/such-model")


def test_pickled_weights_are_refused(tmp_path):
    module = tiny_gpt2()
    module.config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not to be read")
    with pytest.raises(ModelError, match="safetensors"):
        load(tmp_path)


def test_a_builtin_is_loaded_by_name():
    register_builtin("test/tiny", lambda: (tiny_gpt2(seed=8), None))
    assert load("test/tiny").card.family == "gpt2"


def test_a_model_in_memory_is_wrapped_not_copied():
    module = tiny_gpt2()
    loaded = load(module)
    assert loaded.module is module and loaded.name == "GPT2LMHeadModel"


def test_a_model_in_memory_is_not_moved_or_cast():
    with pytest.raises(ModelError, match="move or cast yours yourself"):
        load(tiny_gpt2(), dtype="float16")


def test_training_mode_with_dropout_is_refused_with_the_fix():
    with pytest.raises(ModelError, match=r"\.eval\(\)"):
        load(tiny_gpt2().train())


def test_training_mode_without_anything_random_is_left_as_found():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)).train()
    assert load(module).module.training


def test_batch_norm_in_training_mode_would_change_the_model():
    with pytest.raises(ModelError, match="changes its running statistics"):
        load(nn.Sequential(nn.BatchNorm1d(2)))


def test_a_fingerprint_follows_the_weights():
    module = tiny_gpt2(seed=1)
    loaded = load(module)
    first = loaded.fingerprint()
    assert first == load(tiny_gpt2(seed=1)).fingerprint() != load(tiny_gpt2(seed=2)).fingerprint()
    with torch.no_grad():
        module.transformer.wte.weight[0, 0] += 1
    assert loaded.fingerprint()["weights"] != first["weights"]


def test_half_precision_hashes_too():
    assert len(load(tiny_llama().to(torch.bfloat16)).fingerprint()["weights"]) == 64
