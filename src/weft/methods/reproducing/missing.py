"""What is missing where a paper's weights are not there, exactly."""

from __future__ import annotations

from typing import Any

from weft.methods.papers import Paper


def cached(repository: str) -> bool:
    """Whether the hub's cache on this machine has this model's configuration and its safetensors weights."""
    from huggingface_hub import try_to_load_from_cache

    def there(file: str) -> bool:
        return isinstance(try_to_load_from_cache(repository, file), str)

    return there("config.json") and (there("model.safetensors.index.json") or there("model.safetensors"))


def missing(paper: Paper, why: str) -> dict[str, Any]:
    """As data: each model that the paper's numbers need, and the command that runs it where it is."""
    needs = [
        {
            "model": each.id, "parameters": each.parameters, "bytes_bfloat16": each.bytes, "memory": each.memory,
            "tokenizer": f"tokenizer.json of {each.id}", "note": each.note, "command": paper.command(each.id),
        }
        for each in paper.models
    ]  # fmt: skip
    return {"why": why, "needs": needs}


def told(found: dict[str, Any]) -> str:
    """As text."""
    lines = [f"Nothing was measured: {found['why']}", "", "What is missing, any one of:"]
    for each in found["needs"]:
        lines += [
            f"  {each['model']}: {each['parameters']:,} parameters, {each['bytes_bfloat16']:,} bytes in bfloat16, as "
            f"safetensors, with its {each['tokenizer'].split(' ')[0]}; {each['note']}",
            f"    memory: {each['memory']}",
            f"    then:   {each['command']}",
        ]
    return "\n".join(lines)
