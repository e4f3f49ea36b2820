"""Sen Sharma et al., LLMs Process Lists With General Filter Heads (ICLR 2026)."""

from __future__ import annotations

from weft.methods.papers.form import Figure, Paper, Setting, Weights

LLAMA = "meta-llama/Llama-3.3-70B-Instruct"
GEMMA = "google/gemma-2-27b"
QUESTION = "Which among these objects mentioned above is a {}?"
RHYME = "Which of these rhymes with {}?"
_SCRIPT = "scripts/locate_selection_heads.py"


def _made(what: str, value: float, key: str, mark: str = "R", **more: object) -> Figure:
    return Figure(what, value, mark, LLAMA, key, **more)  # type: ignore[arg-type]


_FIGURES = (
    _made("heads kept by the learned mask", 79, "all/heads", unit="heads", of="of 5,120"),
    _made("causality, SelectOne", 0.863, "all/found/causality", of="884 of 1,024"),
    _made("rise of the target's logit, SelectOne", 9.03, "all/found/delta", unit="logits"),
    _made("causality, one source in place of an average over places", 0.787, "all/found/one_source"),
    _made("causality, heads by attention to the answer", 0.668, "select-one/sets/attention/causality"),
    _made("causality, heads by patching one at a time", 0.588, "select-one/sets/single/causality"),
    _made("causality, options with letters (MCQ)", 0.842, "", why="weft has no task whose options have letters"),
    _made("causality, SelectFirst", 0.688, "select-first/sets/given/causality"),
    _made("causality, SelectLast", 0.777, "select-last/sets/given/causality"),
    _made("causality, Counting", 0.041, "all/within/count/rate"),
    _made("causality, Yes/No", 0.018, "all/within/exists/rate"),
    _made("causality, 2 distractors", 0.830, "distractors-2/sets/given/causality"),
    _made("causality, 7 distractors", 0.762, "distractors-7/sets/given/causality"),
    _made("causality of two queries summed", 0.652, "union/union/sum/rate", of="334 of 512"),
    _made("probe without training, the best head", 0.81, "all/probe/rate", tolerance=0.02,
          of="L35H19; 238 objects, 16 classes"),
    _made("accuracy with the heads knocked out", 22.5, "all/knocked/these/accuracy", "S", unit="%"),
    _made("accuracy with random heads knocked out", 99.6, "all/knocked/random/accuracy", "S", unit="%"),
    _made("causality, as many function-vector heads", 0.002, "", "S",
          why="not run here: function_vector finds such heads, filter_heads(heads=…) takes them"),
    _made("causality, as many concept heads", 0.080, "", "S", why="weft has no method that finds concept heads yet"),
    _made("causality, as many token heads", 0.000, "", "S", why="weft has no method that finds token heads yet"),
    _made("causality, English predicates into Thai lists", 0.951, "", "S", why="weft has no lists in Thai"),
    _made("causality, rhymes", 0.041, "rhymes/sets/given/causality", "S"),
    _made("causality, question before the list", 0.02, "question-first/format/question first/rate", "S", upto=0.58),
    Figure("causality, SelectOne", 0.824, "R", GEMMA, "all/found/causality"),
)  # fmt: skip

FILTER_HEADS = Paper(
    name="filter-heads",
    title="LLMs Process Lists With General Filter Heads",
    authors="Sen Sharma et al.",
    arxiv="2510.26784",
    venue="ICLR 2026",
    data="the repository has no licence file: word lists and questions are weft's own",
    models=(
        Weights(LLAMA, 70_553_706_496, 80, 64, 8192, 128256, "its licence has to be accepted on the hub"),
        Weights(GEMMA, 27_227_128_320, 46, 32, 4608, 256000, "its licence has to be accepted on the hub"),
    ),
    settings=(
        Setting("question", QUESTION, "R", "the template; options in one line before it"),
        Setting(
            "distractors", 4, "R", f"other options than answer and target: 2 to 6, drawn anew each time ({_SCRIPT})"
        ),
        Setting("train_pairs", 512, "R", _SCRIPT),
        Setting("batch_size", 16, "R", _SCRIPT),
        Setting("epochs", 10, "R", "20 are run; the published heads are those of epoch 10"),
        Setting("penalty", 2e-2, "R", "λ, which multiplies a sum over 5,120 heads"),
        Setting("learning_rate", 1e-2, "R", "AdamW; weft's filter_heads has no other"),
        Setting("keep", 0.5, "R", _SCRIPT),
        Setting("at", (-1,), "R", "the mask is learned at the last token"),
        Setting("evaluate_at", (-1, -2, "question_mark"), "R", "and queries averaged over copies of the source"),
        Setting("pairs", 1024, "R", "evaluation: 884 of 1,024"),
        Setting("union_pairs", 512, "R", "334 of 512"),
        Setting("prompts_a_predicate", 10, "R", "the probe's mean queries; weft's filter_heads has no other"),
        Setting("lengths", (2, 3, 4, 5, 6, 7), "R", "distractors, 2 to 7"),
        Setting("score", "first_token", "R", 'first token of " " + item, among the options'),
        Setting("only_right", True, "R", "the right option ranks first in all three prompts of a pair"),
    ),
    figures=_FIGURES,
    differs=(
        "Words: 16 categories of 14 words, weft's own; the authors' 16 of about 15 have no licence.",
        "Lists: of one length, 4 distractors beside answer and target (6 words); the authors draw 2 to 6 for each prompt. "
        "weft's tasks count all words but the answer, so theirs of n is SelectOne(distractors=n + 1).",
        "Late layers: the published sets have heads of late layers set to zero by hand (from layer 52 of Llama's 80 and 40 of "
        "Gemma's 46 on); weft keeps what the mask keeps.",
        "λ: rescaled by 5120 / (layers · heads); Llama-3.3-70B has just these 5,120. What Gemma was trained with is not known "
        "here; weft rescales.",
        "Epochs: training ends after 10; the authors' went on to 20, which changes nothing before.",
        "The places of the mask: the last token alone, as the script says does best; the paper's sets are evaluated at three.",
        "Counting and Yes/No: mean queries of ten prompts of each category, put into prompts of the same task; the authors "
        "take one source prompt's.",
        "Probe: the best of the heads kept, on the words of weft's lists; the authors report L35H19 on 238 objects.",
        "Union: each list has a word of the one category or of the other, and one of the question's own.",
        "Question before the list: one prompt's queries at the last token, not averaged. Subspaces of queries are not run, as "
        "no figure of them is known here: filter_heads(…, parts=[…, 'subspace']).",
        "The authors' notebook says that only its causality column was checked; the rise of the logit was not.",
    ),
)
