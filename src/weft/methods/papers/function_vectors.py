"""Todd et al., Function Vectors in Large Language Models (ICLR 2024)."""

from __future__ import annotations

from weft.methods.functions.prompts import FORM
from weft.methods.papers.form import Figure, Paper, Setting, Weights
from weft.methods.papers.words import ENGLISH_FRENCH
from weft.tasks.words.english import CONCEPTS
from weft.tasks.words.relations import RELATIONS

GPT_J = "EleutherAI/gpt-j-6b"
LLAMA_2_70B = "meta-llama/Llama-2-70b-hf"
TASKS: dict[str, dict[str, str]] = {
    "antonym": dict(RELATIONS["opposite"].pairs),
    "capitalize": {word: word.capitalize() for word in CONCEPTS},
    "country-capital": dict(RELATIONS["capital"].pairs),
    "english-french": ENGLISH_FRENCH,
    "present-past": dict(RELATIONS["past"].pairs),
    "singular-plural": dict(RELATIONS["plural"].pairs),
}
"""The six tasks of Table 2 by the authors' names, with weft's own pairs."""

_ALGORITHM = "the paper's method, as the authors' scripts have it"
_TABLE = "Table 2, mean of six tasks"
_VECTOR = "function vector"


def _table(model: str, shuffled: tuple[float, float], bare: tuple[float, float], of: str) -> list[Figure]:
    rows = (
        ("10 shots with shuffled outputs", "shuffled", shuffled[0]),
        ("10 shots with shuffled outputs, vector added", f"shuffled, {_VECTOR}", shuffled[1]),
        ("zero-shot", "zero-shot", bare[0]),
        ("zero-shot, vector added", f"zero-shot, {_VECTOR}", bare[1]),
    )
    return [
        Figure(
            f"accuracy, {what}", value, "M", model, f"all/mean_accuracy/{condition}/value", "%",
            of=f"{_TABLE}{of if value in (39.1, 90.8) else ''}",
        )
        for what, condition, value in rows
    ]  # fmt: skip


HEADS = {(15, 5): 0.0587, (9, 14): 0.0584, (12, 10): 0.0526, (8, 1): 0.0445, (11, 0): 0.0445}
"""GPT-J's heads of the largest average indirect effect."""

FUNCTION_VECTORS = Paper(
    name="function-vectors",
    title="Function Vectors in Large Language Models",
    authors="Todd, Li, Sen Sharma, Mueller, Wallace and Bau",
    arxiv="2310.15213",
    venue="ICLR 2024",
    data="code and word pairs are under the MIT licence; weft runs on pairs of its own",
    models=(
        Weights(GPT_J, 6_050_882_784, 28, 16, 4096, 50400, "open; tokenizer of GPT-2 with 143 more tokens"),
        Weights(LLAMA_2_70B, 68_976_648_192, 80, 64, 8192, 32000, "its licence has to be accepted on the hub"),
    ),
    settings=(
        Setting("tasks", tuple(TASKS), "R", "the six tasks of Table 2; dataset_files/abstractive"),
        Setting("form", FORM, "R", "Q: x\\nA: y\\n\\n; --prefixes and --separators of evaluate_function_vector.py"),
        Setting("shots", 10, "R", "--n_shots"),
        Setting("held_out", 0.3, "R", "--test_split, then cut into valid and test"),
        Setting("n_means", 100, "R", "get_mean_head_activations: prompts whose queries are answered rightly"),
        Setting("n_effects", 25, "R", "--n_trials: prompts with shuffled outputs"),
        Setting("effects_on", "shuffled", "R", _ALGORITHM),
        Setting("n_heads", 10, "R", "--n_top_heads, for GPT-J; larger models have more, and how many is not known here"),
        Setting("layer", "n_layers // 3", "S", "where adding does best: near a third of the layers (9 of GPT-J's 28)"),
        Setting("only_right", True, "R", "reported on queries that are answered rightly with 10 examples"),
    ),
    figures=(
        *_table(GPT_J, (39.1, 90.8), (5.5, 57.5), ", corroborated elsewhere"),
        *(
            Figure(f"average indirect effect of L{layer}H{head}", aie, "R", GPT_J, f"all/aie/{layer}/{head}", "ΔP",
                   of="mean of the tasks")
            for (layer, head), aie in HEADS.items()
        ),
        Figure("of those five heads, among the ten strongest", 5, "R", GPT_J, "all/overlap", "heads"),
        *_table(LLAMA_2_70B, (52.3, 96.5), (8.2, 83.8), ""),
    ),
    differs=(
        "Pairs: weft's own, fewer than the authors' (" + ", ".join(f"{name} {len(own)}" for name, own in TASKS.items())
        + "; theirs 2,398, 813, 197, 4,698, 293 and 205). With 30 % held out, half of that is asked about at the end.",
        "Heads: the authors' universal set is by the mean effect over all their tasks; weft's over these six.",
        "Indirect effects: the authors ask only queries answered rightly; weft all queries kept for the search.",
        "Means: 100 prompts, as get_mean_head_activations has it by default; evaluate_function_vector.py passes it its "
        "--n_trials, 25, where it makes them itself. With few queries the same ones are asked again under other examples.",
        "Vector: the authors apply out_proj to each head, which adds its bias n times where there is one (GPT-2 XL, "
        "GPT-NeoX); weft takes the weight alone. GPT-J and Llama have no such bias.",
        "Filter: a cached few-shot file in the authors' code silently switches off the filter of the means; weft's is always "
        "on, or off where the result says so.",
        "Llama-2-70B: ten heads, as for GPT-J; the authors sum more.",
        "First tokens: an answer is right if its first token is the likeliest of all, as the authors' rank 0 is.",
    ),
)  # fmt: skip
