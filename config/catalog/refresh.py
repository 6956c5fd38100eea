#!/usr/bin/env python3
"""Writes the catalog's files anew from the public price file of the PyPI package `litellm`.

    config/catalog/refresh.py DATE PACKAGE_FOLDER...

`make catalog` fetches the package and calls this. A file says which version it came from and when. Prices are written for
a million tokens, exactly as they are published: decimal arithmetic, no floats.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).parent
PRICES = "litellm/model_prices_and_context_window_backup.json"

# The provider's name here, and what the price file calls it.
PROVIDERS = {"openai": {"openai", "text-completion-openai"}, "anthropic": {"anthropic"}}
TYPES = {
    "chat": "llm",
    "responses": "llm",
    "completion": "llm",
    "embedding": "text-embedding",
    "moderation": "moderation",
}
RATES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
}
TIER_RATES = ["input", "output", "cached_input", "cache_write"]
FEATURES = {
    "tool-call": "supports_function_calling",
    "multi-tool-call": "supports_parallel_function_calling",
    "vision": "supports_vision",
    "document": "supports_pdf_input",
    "structured-output": "supports_response_schema",
    "audio": "supports_audio_input",
    "reasoning": "supports_reasoning",
}


def million(cost):
    """A price of one token, for a million: 0.00000125 is 1.25."""
    return format((Decimal(cost) * 1_000_000).quantize(Decimal("1e-9")).normalize(), "f")


def rates(entry, names, suffix=""):
    found = ((name, entry.get(RATES[name] + suffix)) for name in names)
    return ", ".join(f"{name}: {million(cost)}" for name, cost in found if cost is not None)


def tiers(entry):
    """Prices for long prompts: `input_cost_per_token_above_272k_tokens` and the like."""
    prefix, end = RATES["input"] + "_above_", "k_tokens"
    bounds = [key[len(prefix) : -len(end)] for key in entry if key.startswith(prefix) and key.endswith(end)]
    return [
        f"{{above: {bound}k, {rates(entry, TIER_RATES, f'_above_{bound}k_tokens')}}}"
        for bound in sorted((bound for bound in bounds if bound.isdigit()), key=int)
    ]


def pricing(entry):
    parts = [part for part in [rates(entry, RATES)] if part]
    if found := tiers(entry):
        parts.append(f"tiers: [{', '.join(found)}]")
    return ", ".join(parts)


def model(name, entry):
    lines = [f"  {json.dumps(name)}:", f"    type: {TYPES[entry['mode']]}"]
    for ours, theirs in [("context", "max_input_tokens"), ("output", "max_output_tokens")]:
        if isinstance(entry.get(theirs), (int, Decimal)):
            lines.append(f"    {ours}: {int(entry[theirs])}")
    if features := [ours for ours, theirs in FEATURES.items() if entry.get(theirs)]:
        lines.append(f"    features: [{', '.join(features)}]")
    if prices := pricing(entry):
        lines.append(f"    pricing: {{{prices}}}")
    return "\n".join(lines)


def main(date, folder):
    folder = Path(folder)
    version = next(folder.glob("litellm-*.dist-info")).name.removeprefix("litellm-").removesuffix(".dist-info")
    entries = json.loads((folder / PRICES).read_text(), parse_float=Decimal)
    for provider, names in PROVIDERS.items():
        found = {
            name: entry
            for name, entry in entries.items()
            if entry.get("litellm_provider") in names and entry.get("mode") in TYPES and "/" not in name
        }
        head = [
            f"# Written by `make catalog`; do not edit. Over these figures stand a model's own `pricing`.",
            f"source: {PRICES} of litellm {version} (PyPI)",
            f"date: {date}",
            "models:",
        ]
        body = [model(name, found[name]) for name in sorted(found)]
        (HERE / f"{provider}.yaml").write_text("\n".join(head + body) + "\n")
        print(f"{provider}: {len(found)} models")


if __name__ == "__main__":
    main(*sys.argv[1:])
