"""Bobbin's recipe at a size that takes seconds: what it is trained on, and that a stopped training goes on unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import weft
from weft import bobbin, tasks
from weft.bobbin import corpus, model, optim, tokenizer, train
from weft.bobbin.forward import forward
from weft.errors import ModelError
from weft.models.load import _BUILTINS

TINY = train.Recipe(steps=4, rows=2, every=2, n=2, size=model.TINY)


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer.build()


@pytest.fixture(scope="module")
def sources() -> tuple[corpus.Source, ...]:
    return tuple(each for each in corpus.mixture() if each.name in ("facts", "binding", "ioi", "greater than"))


def test_no_text_is_lost_in_tokens(words: Any) -> None:
    for name, task in tasks.TASKS.items():
        batch = task().sample(5, seed=1)
        for prompt in (*batch.prompts, "Ünknown — words, too\n\t?"):
            assert words.decode(words.encode(prompt).ids) == prompt, name


def test_words_are_cut_and_the_sentences_are_not(words: Any) -> None:
    assert words.encode(" spinach").tokens == ["<s>", "Ġsp", "ina", "ch"]
    assert words.encode(" SPINACH").tokens == ["<s>", "ĠSP", "INA", "CH"]
    assert words.encode("Which of these").tokens == ["<s>", "Which", "Ġof", "Ġthese"]
    sizes = [len(words.encode(f" {each}").ids) - 1 for each in tasks.words.english.CONCEPTS]
    assert min(sizes) == 2
    assert sum(size > 3 for size in sizes) < 0.05 * len(sizes)


def test_held_out_pairs_are_in_no_function_prompt() -> None:
    shown = 0
    for source in corpus.mixture():
        if "functions" not in source.name:
            continue
        for text, _ in source.write(200, 3):
            lines = text.replace(" ->", ":").replace("Q: ", "").replace("\nA:", ":").replace(", ", "\n").split("\n")
            pairs = [tuple(line.split(": ")) for line in lines if line]
            name = tasks.InContextFunctions()._function(tuple(pairs))
            fits = [name] if name else [n for n, r in relations() if all(r.get(x) == y for x, y in pairs)]
            assert any(not any(tasks.held_out(each, x) for x, _ in pairs) for each in fits), text
            shown += len(pairs)
    assert shown > 1000


def relations() -> list[tuple[str, dict[str, str]]]:
    return [(name, dict(table.facts)) for name, table in tasks.own_tables().items()]


def test_random_tokens_are_said_twice_and_count_the_second_time(words: Any) -> None:
    source = corpus.RandomTokens("random", texts=5, least=3, most=9)
    for ids, weights in source.rows(words, 0, 0.02):
        size = len(ids) // 2
        assert ids[0] == words.token_to_id(tokenizer.BOS)
        assert ids[1 : size + 1] == ids[size + 1 :]
        assert len(set(ids[1:])) == size >= 3
        assert weights == [0.0] * (size + 2) + [1.0] * (size - 1)  # nothing tells the first of them


def test_what_counts_fully_is_what_the_text_before_decides(words: Any) -> None:
    (source,) = (each for each in corpus.mixture() if each.name == "ioi")
    shard = corpus.make_shard(words, 0, 0, [source])
    first = shard.texts[0] == 1
    whole = words.decode(shard.ids[0][first].tolist())
    counted = words.decode(shard.ids[0][first & (shard.weights[0] == 1)].tolist())
    assert whole.endswith(f" to{counted}")
    assert whole.count(counted) == 2  # the name said once before, and not the giver's, which is said twice


def test_a_shard_is_the_same_every_time_and_another_is_not(words: Any, sources: Any) -> None:
    once, again = (corpus.make_shard(words, 1, 2, sources) for _ in range(2))
    assert torch.equal(once.ids, again.ids)
    assert not torch.equal(once.ids[0], corpus.make_shard(words, 1, 3, sources).ids[0])


def test_packed_texts_see_nothing_of_each_other(words: Any, sources: Any) -> None:
    net = model.make(words.get_vocab_size(), size=model.TINY).eval()
    torch.nn.init.normal_(net.model.embed_tokens.weight)
    shard = corpus.make_shard(words, 0, 0, sources)
    with torch.no_grad():
        packed = forward(net, shard.ids[:1], shard.texts[:1], torch.float32)[0]
        for text in range(1, int(shard.texts[0].max()) + 1):
            own = shard.texts[0] == text
            alone = net(input_ids=shard.ids[:1, own]).logits[0]
            torch.testing.assert_close(packed[own], alone, rtol=1e-4, atol=1e-4)


def test_orthogonal_brings_singular_values_to_one() -> None:
    torch.manual_seed(0)
    given = torch.randn(3, 24, 8)
    turned = optim.orthogonal(given)
    values = torch.linalg.svdvals(turned)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    assert torch.cosine_similarity(turned.flatten(1), (u @ v).flatten(1)).min() > 0.95


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train.train(tmp_path / "whole", TINY, sources=sources)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "note", killed)  # the checkpoint of step 2 is written, its line of the log is not
        with pytest.raises(KeyboardInterrupt):
            train.train(tmp_path / "parts", TINY, sources=sources)
    parts = train.train(tmp_path / "parts", TINY, resume=True, sources=sources)
    for name, each in whole.named_parameters():
        assert torch.equal(each, parts.get_parameter(name)), name
    assert (tmp_path / "parts" / "log.jsonl").read_text().count("step") == 1


def test_trained_weights_are_loaded_by_name_and_anywhere(
    tmp_path: Path, sources: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train.train(tmp_path, TINY, sources=sources)
    monkeypatch.setattr(bobbin, "FOLDER", tmp_path / "model")
    monkeypatch.setitem(_BUILTINS, "bobbin", None)  # so that it is forgotten again after this test
    model = weft.load("bobbin")
    ids = words.encode("The capital of France is").ids
    with torch.no_grad():
        expected = trained.eval()(torch.tensor([ids])).logits
        elsewhere = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(torch.tensor([ids])).logits
    with model.session() as session:
        run = session.run("The capital of France is")
        logits = run.logits.save("logits")
    torch.testing.assert_close(logits.value, expected)
    torch.testing.assert_close(elsewhere, expected)


def test_a_checkpoint_is_not_begun_anew_by_mistake(tmp_path: Path, sources: Any) -> None:
    with pytest.raises(ModelError, match="not there to resume"):
        train.train(tmp_path, TINY, resume=True, sources=sources)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="give another folder"):
        train.train(tmp_path, TINY, sources=sources)
