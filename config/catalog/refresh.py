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
    "audio_transcription": "speech2text",
    "audio_speech": "tts",
}
RATES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "image_output": "output_cost_per_image_token",
}
# What is priced by something else than tokens, where tokens have no price.
UNITS = {"per_second": "input_cost_per_second", "per_character": "input_cost_per_character"}
# Our name of a way to be served, and the end of its prices' names.
SERVICES = {"flex": "_flex", "priority": "_priority", "ultrafast": "_ultrafast", "batch": "_batches"}
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


def exact(cost):
    return format(Decimal(cost).quantize(Decimal("1e-9")).normalize(), "f")


def rates(entry, suffix, times):
    found = ((name, entry.get(cost + suffix)) for name, cost in RATES.items())
    return [f"{name}: {million(cost * times)}" for name, cost in found if cost is not None]


def card(entry, suffix="", times=1):
    """The prices of one way to be served, and for long prompts: `input_cost_per_token_above_272k_tokens_flex` and the like."""
    parts = rates(entry, suffix, times)
    prefix, end = RATES["input"] + "_above_", "k_tokens" + suffix
    bounds = [key[len(prefix) : -len(end)] for key in entry if key.startswith(prefix) and key.endswith(end)]
    tiers = [
        f"{{above: {bound}k, {', '.join(rates(entry, f'_above_{bound}k_tokens{suffix}', times))}}}"
        for bound in sorted((bound for bound in bounds if bound.isdigit()), key=int)
    ]
    return parts + ([f"tiers: [{', '.join(tiers)}]"] if tiers else [])


def services(entry):
    found = {name: card(entry, suffix) for name, suffix in SERVICES.items()}
    # Anthropic's fast mode is told as a factor of all prices.
    if times := entry.get("provider_specific_entry", {}).get("fast"):
        found["fast"] = card(entry, times=times)
    return [f"{name}: {{{', '.join(parts)}}}" for name, parts in found.items() if parts]


def pricing(entry):
    parts = card(entry)
    if not parts:
        parts = [f"{name}: {exact(entry[cost])}" for name, cost in UNITS.items() if entry.get(cost) is not None]
    if found := services(entry):
        parts.append(f"service_tiers: {{{', '.join(found)}}}")
    # A search costs the same however much of the pages is read; where it does not, no one price is right.
    searches = set((entry.get("search_context_cost_per_query") or {}).values())
    if parts and len(searches) == 1:
        parts.append(f"per_web_search: {exact(searches.pop())}")
    # What is served in the US and nowhere else is told as a factor of all prices of tokens.
    if parts and (times := entry.get("provider_specific_entry", {}).get("us")):
        parts.append(f"us_inference: {format((Decimal(times) * 100 - 100).normalize(), 'f')}%")
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
