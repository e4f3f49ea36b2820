"""Activations on disk: equal to hooks by hand, the same bytes after a kill, and nothing lost when something goes wrong."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import tiny_gpt2

import weft
from weft.collect import batches, run
from weft.errors import DtypeError, ExecutionError, NotFoundError, PositionError, RefusedError, SiteError, TokenError
from weft.planted.words import VOCABULARY, word_tokenizer

TEXTS = ["the cat saw a dog", "one two three", "red", "a dog and a red cat in the city of Rome"]


@pytest.fixture(scope="module")
def module():
    return tiny_gpt2(3, n_positions=32)


@pytest.fixture(scope="module")
def model(module):
    return weft.load(module, name="tiny")


def ragged(count: int, seed: int = 0, longest: int = 20) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(17) for _ in range(draw.randrange(1, longest))] for _ in range(count)]


def by_hand(module, ids: list[int]) -> list[torch.Tensor]:
    """Each block's output [pos, d_model], from a plain hook."""
    found: list[torch.Tensor] = []
    blocks = module.transformer.h
    hooks = [
        block.register_forward_hook(lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out))
        for block in blocks
    ]
    with torch.no_grad():
        module(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return [each.reshape(len(ids), -1) for each in found]


@pytest.fixture
def small(monkeypatch):
    """Several windows, batches and shards out of few prompts."""
    monkeypatch.setattr(batches, "WINDOW_PROMPTS", 20)
    monkeypatch.setattr(batches, "MOST_TOKENS", 60)
    monkeypatch.setattr(run, "SHARD_BYTES", 20_000)


def test_every_row_is_what_a_hook_sees(model, module, tmp_path, small):
    rows = ragged(50)
    found = model.collect(iter(rows), "resid_post", to=tmp_path / "c")
    assert found.complete and found.prompts == 50 and found.rows == sum(map(len, rows))
    assert len(list((tmp_path / "c").glob("*.safetensors"))) > 3
    for number in range(50):
        prompt = found.prompt(number)
        assert prompt["token"].tolist() == rows[number] and prompt["position"].tolist() == list(
            range(len(rows[number]))
        )
        for layer, expected in enumerate(by_hand(module, rows[number])):
            torch.testing.assert_close(prompt[f"resid_post[{layer}]"], expected, rtol=1e-5, atol=1e-5)


def test_a_batch_keeps_within_its_tokens_and_holds_no_padding(small):
    prompts = [batches.Prompt(n, tuple(ids), tuple(range(len(ids)))) for n, ids in enumerate(ragged(50))]
    shards = list(batches.shards(prompts, 60, 100))
    assert sorted(p.number for s in shards for p in s.prompts) == list(range(50))
    assert all(sum(len(p.ids) for p in b.prompts) <= 60 for s in shards for b in s.batches)
    assert all(b.first == sum(x.rows for x in s.batches[:i]) for s in shards for i, b in enumerate(s.batches))


@pytest.mark.parametrize(
    ("at", "expected"),
    [(-1, [4]), (0, [0]), ([0, -2], [0, 3]), (lambda number, ids: [number + 1], [1])],
    ids=["last", "first", "list", "function"],
)
def test_chosen_positions(model, module, tmp_path, at, expected):
    ids = [1, 2, 3, 4, 5]
    found = model.collect([ids], "resid_post[1]", at=at, to=tmp_path / "c").prompt(0)
    assert found["position"].tolist() == expected
    torch.testing.assert_close(found["resid_post[1]"], by_hand(module, ids)[1][expected], rtol=1e-5, atol=1e-5)


class Sized:
    """As a `datasets.Dataset` is: a length, rows by number, and no list."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"label": "x", "sentence": TEXTS[index]}


@pytest.fixture(scope="module")
def speaking():
    sizes = {"vocab_size": len(VOCABULARY), "bos_token_id": 0, "eos_token_id": None}
    return weft.load(tiny_gpt2(1, n_positions=32, **sizes), tokenizer=word_tokenizer(), name="words")


def test_prompts_of_any_kind_are_the_same_prompts(speaking, tmp_path):
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS) + "\n")
    kinds = {
        "list": TEXTS,
        "iterator": iter(TEXTS),
        "file": tmp_path / "texts.txt",
        "dataset": Sized(),
        "column": [{"sentence": text} for text in TEXTS],
    }
    shards = set()
    for name, prompts in kinds.items():
        found = speaking.collect(prompts, ["resid_post[0]"], to=tmp_path / name, column="sentence")
        shards.add(hashlib.sha256((found.folder / "000000.safetensors").read_bytes()).hexdigest())
    assert len(shards) == 1


def test_a_text_as_a_place_is_its_last_token(speaking, tmp_path):
    found = speaking.collect([TEXTS[3]], "resid_post[0]", at=" Rome", to=tmp_path / "c")
    assert found.token_of.tolist() == [speaking.tokens.single(" Rome")]


def test_standing_edits_are_in_what_is_collected(model, module, tmp_path):
    with model.edit() as steered:
        steered.resid_post[0][:, -1] += 1.0
    plain = by_hand(module, [1, 2, 3])[0]
    found = steered.collect([[1, 2, 3]], "resid_post[0]", to=tmp_path / "c").prompt(0)["resid_post[0]"]
    torch.testing.assert_close(found, plain + torch.tensor([[0.0], [0.0], [1.0]]), rtol=1e-5, atol=1e-5)
    with pytest.raises(RefusedError, match="edits"):
        model.collect([[1, 2, 3]], "resid_post[0]", to=tmp_path / "c")


# -- taken up again ---

KILLED = """
import os, sys
sys.path[:0] = {path!r}
import weft
from test_collect import ragged, tiny_gpt2
from weft.collect import batches, folder, run
batches.WINDOW_PROMPTS, batches.MOST_TOKENS, run.SHARD_BYTES = 20, 60, 20_000
finish, count = folder.ShardFile.finish, [0]
def dying(self):
    count[0] += 1
    if count[0] == {after}:
        self.file.flush()
        os.kill(os.getpid(), 9)
    finish(self)
folder.ShardFile.finish = dying
weft.load(tiny_gpt2(3, n_positions=32), name="tiny").collect(ragged(50), ["resid_post", "z[1]"], to={to!r})
"""


def content(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.suffix != ".part"}


def test_killed_half_way_and_taken_up_again_gives_the_same_bytes(model, tmp_path, small):
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    code = KILLED.format(path=path, after=3, to=str(killed))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr
    half = weft.Collection(killed)
    assert not half.complete and 0 < half.prompts < 50 and list(killed.glob("*.part"))
    with (killed / "shards.jsonl").open("ab") as file:
        file.write(b'{"file": "0000')  # a line that a kill left half written
    kept = {name: os.stat(killed / name).st_mtime_ns for name in ("000000.safetensors", "000001.safetensors")}
    model.collect(ragged(50), ["resid_post", "z[1]"], to=killed)
    model.collect(ragged(50), ["resid_post", "z[1]"], to=straight)
    assert content(killed) == content(straight)
    assert kept == {name: os.stat(killed / name).st_mtime_ns for name in kept}, "what was whole is not done again"


def test_other_prompts_or_another_question_are_refused(model, tmp_path, small):
    model.collect(ragged(30), "resid_post", to=tmp_path / "c")
    with pytest.raises(RefusedError, match="prompts are not those"):
        model.collect(ragged(30, seed=1), "resid_post", to=tmp_path / "c")
    with pytest.raises(RefusedError, match="more prompts than were given"):
        model.collect(ragged(30)[:20], "resid_post", to=tmp_path / "c")
    model.collect(ragged(20), "resid_post", to=tmp_path / "whole")
    with pytest.raises(RefusedError, match="complete collection of fewer prompts"):
        model.collect(ragged(30), "resid_post", to=tmp_path / "whole")
    with pytest.raises(RefusedError, match="sites: there"):
        model.collect(ragged(30), "z", to=tmp_path / "c")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RefusedError, match=r"thesis\.txt"):
        model.collect(ragged(30), "z", to=tmp_path / "mine")


def test_one_process_at_a_time(model, tmp_path):
    def prompts():
        yield [1]
        with pytest.raises(RefusedError, match="another process"):
            model.collect([[1]], "embed", to=tmp_path / "c")
        yield [2]

    assert model.collect(prompts(), "embed", to=tmp_path / "c").prompts == 2


# -- what goes wrong ---


def test_an_error_half_way_loses_nothing_and_says_how_to_go_on(model, tmp_path, small):
    rows = ragged(50)
    with pytest.raises(TokenError, match=r"prompt 45.* [1-9]\d prompts are collected and kept"):
        model.collect([*rows[:45], [99], *rows[46:]], "resid_post", to=tmp_path / "c")
    kept = weft.Collection(tmp_path / "c")
    assert not kept.complete and kept.prompts >= 20
    assert model.collect(rows, "resid_post", to=tmp_path / "c").complete


def test_nan_names_site_prompt_and_position(tmp_path):
    module = tiny_gpt2(3)
    with torch.no_grad():
        module.transformer.wte.weight[5, 0] = float("nan")
    broken = weft.load(module, name="tiny")
    with pytest.raises(ExecutionError, match=r"embed at prompt 1, position 2 is not a finite number"):
        broken.collect([[1, 2, 3], [1, 2, 5]], ["embed", "resid_post"], to=tmp_path / "c")


def test_what_a_dtype_cannot_hold_is_said(tmp_path):
    module = tiny_gpt2(3)
    with torch.no_grad():
        module.transformer.wte.weight[5] *= 1e6
    loud = weft.load(module, name="tiny")
    with pytest.raises(
        ExecutionError, match=r"prompt 0, position 1 is too large for float16; collect with dtype='bfloat16'"
    ):
        loud.collect([[1, 5]], "resid_post[0]", to=tmp_path / "c", dtype="float16")


def test_a_full_disk_loses_nothing(model, tmp_path, small):
    import resource

    rows, limits = ragged(50), resource.getrlimit(resource.RLIMIT_FSIZE)
    model.collect(rows[:20], "resid_post", to=tmp_path / "few")
    largest = max(each.stat().st_size for each in (tmp_path / "few").glob("*.safetensors"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))
    try:
        with pytest.raises(
            ExecutionError, match=r"could not be written: .*; make room.* prompts are collected and kept"
        ):
            model.collect(rows, "resid_post", to=tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "c").glob("*.part"))
    assert model.collect(rows, "resid_post", to=tmp_path / "c").complete


def test_stopping_keeps_what_is_done(model, tmp_path, small):
    def prompts():
        for number, row in enumerate(ragged(50)):
            if number == 41:
                raise KeyboardInterrupt
            yield row

    with pytest.raises(KeyboardInterrupt) as stopped:
        model.collect(prompts(), "resid_post", to=tmp_path / "c")
    assert "prompts are collected and kept" in "".join(stopped.value.__notes__)
    assert weft.Collection(tmp_path / "c").prompts >= 20


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sites": "nothing"}, SiteError, "nothing"),
        ({"sites": "pattern[0]"}, SiteError, "one row of fixed size for each token"),
        ({"sites": []}, SiteError, "at least one site"),
        ({"at": 7}, PositionError, "prompt 0: there is no position 7 in its 3 tokens"),
        ({"dtype": "int8"}, DtypeError, "float16, bfloat16"),
        ({"prompts": [{"words": "x"}]}, TokenError, "the columns words and no 'text'"),
        ({"prompts": []}, RefusedError, "no prompts"),
        ({"prompts": [[1], []]}, TokenError, "prompt 1: it is empty"),
        ({"budget": 10}, weft.errors.LimitError, "less than one token"),
        ({"to": None}, RefusedError, "to=FOLDER"),
    ],
    ids=str,
)
def test_refusals_name_what_to_do(model, tmp_path, changes, error, words):
    given = {"prompts": [[1, 2, 3]], "sites": "resid_post", "to": tmp_path / "c", **changes}
    with pytest.raises(error, match=words.replace("[", r"\[")):
        model.collect(given.pop("prompts"), given.pop("sites"), **given)


# -- read again ---


def test_labelled_arrays_are_read_where_they_are_looked_at(model, tmp_path, small, monkeypatch):
    rows = ragged(50)
    found = model.collect(rows, "resid_post", to=tmp_path / "c")
    read: list[tuple[str, int, int]] = []
    plain = weft.Collection.read
    monkeypatch.setattr(
        weft.Collection, "read", lambda self, site, a=0, b=None: read.append((site, a, b)) or plain(self, site, a, b)
    )
    array = found["resid_post"]
    assert array.dims == ("layer", "row", "d_model") and array.shape == (2, found.rows, 12) and not read
    few = array.sel(layer=1)[5:9:2].values
    assert read == [("resid_post[1]", 5, 8)]
    np.testing.assert_array_equal(few, plain(found, "resid_post[1]").numpy()[5:9:2])
    chosen = array.isel(row=np.flatnonzero((array.prompt == 7).values))
    np.testing.assert_array_equal(chosen.sel(layer=0).values, found.prompt(7)["resid_post[0]"].numpy())
    backwards = found["resid_post[0]"][::-3].values
    np.testing.assert_array_equal(backwards, plain(found, "resid_post[0]").numpy()[::-3])


def test_half_precision_is_kept_as_asked(model, module, tmp_path):
    for dtype in ("bfloat16", torch.float16):
        found = model.collect([[1, 2, 3]], "resid_post[0]", to=tmp_path / str(dtype), dtype=dtype)
        stored = found.read("resid_post[0]")
        assert str(stored.dtype).endswith(str(dtype).removeprefix("torch."))
        torch.testing.assert_close(stored, by_hand(module, [1, 2, 3])[0].to(stored.dtype), rtol=1e-2, atol=1e-2)
        assert found["resid_post[0]"].values.dtype == (np.float32 if dtype == "bfloat16" else np.float16)


def test_a_dataset_gives_every_row_once_and_mixes_the_shards(model, tmp_path, small, monkeypatch):
    from weft.collect import dataset

    monkeypatch.setattr(dataset, "BLOCK", 8)
    found = model.collect(ragged(50), "resid_post", to=tmp_path / "c")
    batches_ = found.dataset("resid_post[0]", batch_size=32, labels=True)
    passes = [list(batches_) for _ in range(2)]
    rows = found.read("resid_post[0]")
    place = {(int(p), int(q)): row for p, q, row in zip(found.prompt_of, found.position_of, rows, strict=True)}
    for batch_list in passes:
        seen = [
            (int(p), int(q)) for batch in batch_list for p, q in zip(batch["prompt"], batch["position"], strict=True)
        ]
        assert sorted(seen) == sorted(place) and len(batch_list) == len(batches_)
        assert all(
            torch.equal(batch["resid_post[0]"][0], place[int(batch["prompt"][0]), int(batch["position"][0])])
            for batch in batch_list
        )
    first, second = ([b["prompt"].tolist() for b in each] for each in passes)
    assert first != second and len(set(first[0])) > 3
    again = [b["prompt"].tolist() for b in found.dataset("resid_post[0]", batch_size=32, labels=True)]
    assert again == first
    straight = found.dataset("resid_post[0]", batch_size=100, shuffle=False)
    assert torch.equal(torch.cat(list(straight)), rows)


def test_workers_of_a_data_loader_share_the_rows(model, tmp_path, small, monkeypatch):
    from weft.collect import dataset

    monkeypatch.setattr(dataset, "BLOCK", 8)
    found = model.collect(ragged(50), "resid_post", to=tmp_path / "c")
    loader = torch.utils.data.DataLoader(found.dataset("resid_post[0]", batch_size=32), batch_size=None, num_workers=2)
    got = torch.cat(list(loader))
    assert torch.equal(got.sum(1).sort().values, found.read("resid_post[0]").sum(1).sort().values)


def test_what_was_not_collected_is_named(model, tmp_path):
    found = model.collect([[1, 2]], "resid_post[0]", to=tmp_path / "c")
    for ask in (lambda: found["z"], lambda: found.read("z[0]"), lambda: found.dataset("z[0]")):
        with pytest.raises(NotFoundError, match=r"there are resid_post\[0\]"):
            ask()
    with pytest.raises(NotFoundError, match="prompt 3"):
        found.prompt(3)


def test_the_page_on_collecting_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/collecting.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for block in blocks:
        exec(compile(block, "docs/collecting.md", "exec"), space)
    assert len(blocks) == 3 and float(space["s"].results["distance"]) > 0 and not list(space["model"].kept)
