"""Models that are large: placed over several devices and the disk, or with nothing here but their configuration."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from tests.tiny import KINDS, randomised, tiny, tiny_llama

import weft
from weft.errors import ModelError, SessionError
from weft.models import alike, cardbuild, load

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
LLAMA_70B = {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 128256, "dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
ON_DISK = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
           "model.layers.2": "disk", "model.norm": "cpu", "lm_head": "disk"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("model") / "tiny-llama"
    tiny_llama(seed=2).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    from transformers import LlamaConfig

    where = tmp_path_factory.mktemp("configuration") / "llama-70b"
    LlamaConfig(**LLAMA_70B, architectures=["LlamaForCausalLM"]).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def offloaded(folder, tmp_path_factory):
    return weft.load(folder, device_map=ON_DISK, offload_folder=tmp_path_factory.mktemp("spare"))


def an_experiment(model, plan="auto"):
    with model.session(plan=plan) as s:
        clean, corrupt = s.run(IDS), s.run(IDS.flip(1))
        for layer in range(3):
            fork = corrupt.fork()
            fork.z[layer][:, -1, 2] = clean.z[layer][:, -1, 2]
            fork.logits[:, -1].save(f"z {layer}")
        edited = corrupt.fork()
        edited.mlp_post[1][:, 2] *= 1.5
        edited.pattern[2].save("pattern")
        edited.head_out[1].save("head_out")
        (edited.resid_post[1] @ model.W_Q[2][0]).save("weight")
        model.unembed(edited.final_norm).save("unembed")
    return s


def train(model):
    offset = torch.zeros(128256, requires_grad=True)
    return model.fit(lambda s, _: (s.run(IDS).logits + offset).mean(), offset, steps=1, lr=1.0)


# -- nothing but a configuration -------------------------------------------------------------------------------------------


def test_an_experiment_on_a_configuration_is_written_and_explained(configuration):
    model = weft.load(configuration)
    with model.session(run=False) as s:
        clean, corrupt = s.run(IDS), s.run(IDS.flip(1))
        fork = corrupt.fork()
        fork.z[40][:, -1, 3] = clean.z[40][:, -1, 3]
        out = (fork.resid_post[79][:, -1] @ model.W_U).save()
        assert out.shape == (2, 128256) and out.dtype == torch.bfloat16
    assert all(each.is_meta for each in model.backend.loaded.module.parameters())
    said = s.explain()
    # layers 0 to 79 of 2 clean and of 2 edited rows of 5; an unedited corrupted row is asked for by nobody
    assert "70.55 G parameters, 141.1 GB of bfloat16" in said and "1 of 2 edited ones" in said


def test_a_configuration_takes_little_memory(configuration):
    code = (
        "import torch, transformers, weft, resource\n"
        f"model = weft.load({str(configuration)!r})\n"
        "with model.session(run=False) as s:\n"
        "    s.run(torch.tensor([[1, 2, 3]])).logits.save()\n"
        "s.explain()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1e6  # KiB, of 141 GB of weights


def test_running_without_weights_says_what_is_missing(configuration):
    model = weft.load(configuration)
    said = r"llama-70b cannot be run: .*config\.json and no weights"
    with pytest.raises(ModelError, match=said) as caught, model.trace(IDS) as run:
        run.logits.save()
    assert "test_large.py" in str(caught.value.where)


@pytest.mark.parametrize("ask", [
    lambda model: model.W_U,
    lambda model: model.unembed(torch.zeros(8192)),
    lambda model: model.backend.fingerprint(),
    train,
])  # fmt: skip
def test_no_number_is_made_up(configuration, ask):
    with pytest.raises(ModelError, match="no weights"):
        ask(weft.load(configuration))


def test_weights_may_be_left_where_they_are(folder):
    model = load(folder, weights=False)
    assert all(each.is_meta for each in model.module.parameters()) and "weights=False" in model.missing
    assert model.card == load(folder).card


def test_weights_that_are_wanted_and_absent_are_an_error(configuration):
    with pytest.raises(ModelError, match="cannot load"):
        load(configuration, weights=True)


def test_a_server_does_not_serve_a_configuration(configuration):
    from weft.worker.engine import load as serve

    with pytest.raises(ModelError, match="no weights"):
        serve(str(configuration), {})


def test_a_session_that_is_not_run_says_so(folder):
    model = weft.load(folder)
    with model.session(run=False) as s:
        value = s.run(IDS).logits.save()
    with pytest.raises(SessionError):
        s.record  # noqa: B018
    with pytest.raises(Exception, match="run=False"):
        value.value  # noqa: B018
    with pytest.raises(ModelError, match="give one of them"):
        model.session(run=False, wait=False)


def test_what_is_explained_beforehand_is_what_is_done(folder):
    model = weft.load(folder)
    with model.session(run=False) as before:
        an = before.run(IDS)
        fork = an.fork()
        fork.z[1][:, -1] = 0
        (an.logits.sum() + fork.logits.sum()).save()
    with model.session() as after:
        an = after.run(IDS)
        fork = an.fork()
        fork.z[1][:, -1] = 0
        (an.logits.sum() + fork.logits.sum()).save()
    planned = [line for line in before.explain().splitlines() if line.startswith(("asked for", "planned", "  layer"))]
    assert planned and all(line in after.explain() for line in planned)


def test_an_experiment_written_elsewhere_is_sent(folder):
    from weft import serve

    with weft.load(folder, weights=False).session(run=False) as s:
        s.run(IDS).logits[:, -1].save("last")
    with serve.background(models=[serve.ModelSpec("mine", str(folder))]) as url:
        found = weft.connect(url).submit("mine", s.experiment).result()["last"]
    with torch.no_grad():
        assert torch.allclose(found, tiny_llama(seed=2)(IDS).logits[:, -1], atol=1e-6)


# -- cards of many layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", *KINDS])
def test_layers_that_are_alike_are_described_alike(kind, monkeypatch):
    changes = {"num_hidden_layers": 6}
    if "layer_types" in KINDS.get(kind, ("", "", {}))[2]:
        changes["layer_types"] = KINDS[kind][2]["layer_types"] * 2
    if kind == "smollm3":
        changes["no_rope_layers"] = [1, 1, 0] * 2
    module = tiny_llama(**changes) if kind == "llama" else tiny(kind, **changes)
    short = cardbuild.build(load(module))
    assert len(set(alike.layers(module, load(module).family.layers).values())) <= 3
    monkeypatch.setattr(alike, "layers", lambda module, path: {layer: layer for layer in range(6)})
    assert short == cardbuild.build(load(module))


def test_layers_that_differ_are_not_alike():
    module = tiny_llama(num_hidden_layers=4)
    module.model.layers[2].mlp.act_fn = torch.nn.Tanh()
    module.model.layers[3].self_attn.scaling = 0.5
    assert alike.layers(module, "model.layers") == {0: 0, 1: 0, 2: 2, 3: 3}


# -- placement -------------------------------------------------------------------------------------------------------------


def test_half_precision_is_read_as_such(folder):
    assert {each.dtype for each in load(folder, dtype="bfloat16").module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("plan", ["auto", "reference"])
def test_parts_on_disk_give_the_same_numbers(folder, offloaded, plan):
    assert sum(each.is_meta for each in offloaded.backend.loaded.module.parameters()) > 10
    whole, parted = an_experiment(weft.load(folder)), an_experiment(offloaded, plan)
    for name, value in whole.results.items():
        assert torch.allclose(value, parted.results[name], atol=1e-6), name
    assert ("planned" if plan == "auto" else "reference") in parted.explain().splitlines()[0]


def test_a_sweep_fetches_each_part_once_a_pass(folder, offloaded, monkeypatch):
    from accelerate.hooks import AlignDevicesHook

    fetched = []
    before = AlignDevicesHook.pre_forward
    down = offloaded.backend.loaded.module.get_submodule("model.layers.2.mlp.down_proj")

    def counted(self, module, *args, **kwargs):
        fetched.append(module is down)
        return before(self, module, *args, **kwargs)

    an_experiment(offloaded)  # whatever is done once
    monkeypatch.setattr(AlignDevicesHook, "pre_forward", counted)
    said = an_experiment(offloaded).explain()
    assert "5 runs" in said and sum(fetched) == 2  # unedited rows, edited ones


def test_a_card_of_a_placed_model_is_the_models(folder, offloaded):
    assert offloaded.card == weft.load(folder).card


def test_weights_on_disk_are_read_by_name(folder, offloaded):
    whole = weft.load(folder)
    for name in ("param(model.layers.2.mlp.up_proj.weight)", "W_O[1]", "b_Q[2]", "W_U", "W_E"):
        assert torch.equal(offloaded.backend.param(name), whole.backend.param(name)), name
    assert offloaded.backend.fingerprint()["weights"] == whole.backend.fingerprint()["weights"]


def test_gradients_pass_through_parts_on_disk(folder, offloaded):
    def gradient(model):
        with model.session() as s:
            run = s.run(IDS)
            weft.grad(run.logits[:, -1, 4].sum(), [run.resid_post[0]])[0].save("gradient")
        return s.results["gradient"]

    assert torch.allclose(gradient(offloaded), gradient(weft.load(folder)), atol=1e-6)


def test_generation_with_parts_on_disk(folder, offloaded):
    def made(model):
        with model.session() as s:
            s.generate(IDS, max_new_tokens=3).tokens.save("tokens")
        return s.results["tokens"]

    assert torch.equal(made(offloaded), made(weft.load(folder)))


def test_a_model_that_somebody_else_placed(folder, tmp_path):
    from accelerate import disk_offload

    whole = tiny_llama(seed=2)
    placed = disk_offload(copy.deepcopy(whole), tmp_path / "spare")
    loaded = weft.load(placed)
    with loaded.trace(IDS) as run:
        logits = run.logits.save()
    with torch.no_grad():
        assert torch.allclose(logits.value, whole(IDS).logits, atol=1e-6)
    assert loaded.card.sites == weft.load(whole).card.sites


def test_one_device_of_a_map_is_that_device(folder):
    loaded = load(folder, device_map="cpu")
    assert str(loaded.device) == "cpu" and not any(each.is_meta for each in loaded.module.parameters())


@pytest.mark.parametrize(("options", "said"), [
    ({"device_map": "auto", "device": "cpu"}, "give one of them"),
    ({"max_memory": {"cpu": "1GiB"}}, "give that too"),
    ({"offload_folder": "spare"}, "give that too"),
    ({"device_map": ON_DISK}, "offload_folder="),
])  # fmt: skip
def test_placement_that_cannot_be_is_refused(folder, options, said):
    with pytest.raises(ModelError, match=said):
        load(folder, **options)


def test_placement_needs_accelerate(folder, monkeypatch):
    monkeypatch.setattr("weft.models.placement._has_accelerate", lambda: False)
    with pytest.raises(ModelError, match=r"weft\[large\]"):
        load(folder, device_map="auto")


def test_a_built_in_model_is_not_placed():
    with pytest.raises(ModelError, match="built in"):
        weft.load("induction", device_map="auto")


@pytest.mark.slow  # a process of its own, and a checkpoint written
def test_loading_makes_no_second_copy(tmp_path):
    """A checkpoint of 200 MB: what loading adds to the process is about that, its pages counted once."""
    from transformers import GPT2Config, GPT2LMHeadModel

    module = randomised(GPT2LMHeadModel(GPT2Config(n_layer=4, n_embd=1024, n_head=8, vocab_size=1000)), 0)
    module.save_pretrained(tmp_path / "wide")
    size = sum(each.nbytes for each in module.parameters())
    code = (
        "import resource, torch, transformers, weft; from weft.models import load\n"
        "from transformers import GPT2LMHeadModel\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"loaded = load({str(tmp_path / 'wide')!r}, dtype='float32')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.6 * size
