"""The model card of a bundle."""

from typing import Any

DESCRIPTIONS = {
    "head-only": "the encoder is frozen; only the classification head (and pooler) was trained",
    "lora": "low-rank adapters on the encoder's linear layers and the classification head were trained, then merged",
    "full-ft": "all weights were trained",
}


def render(facts: dict[str, Any]) -> str:
    """README.md of a bundle, from the facts that `metrics.json` and the manifest hold."""
    config, training, validation = facts["config"], facts["training"], facts["metrics"]["val"]
    labels, name = facts["labels"], facts["name"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        f"base_model: {facts['base_model']}",
        "tags:",
        "- intent-classification",
        f"- {config['regime']}",
        "---",
        "",
        f"# {name}",
        "",
        f"A classifier of {len(labels)} intents, made from `{facts['base_model']}` with regime `{config['regime']}`:"
        f" {DESCRIPTIONS[config['regime']]}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| training data | `{facts['data']['name']}`, {facts['data']['train_rows']:,} sentences |",
        f"| trainable parameters | {training['trainable_parameters']:,} of {training['total_parameters']:,} |",
        f"| training time | {training['seconds']:.0f} s, {training['precision']}, {training['hardware']} |",
        f"| validation accuracy | {100 * validation['accuracy']:.2f} % on {facts['data']['val_rows']:,} sentences |",
        f"| validation macro-F1 | {100 * validation['macro_f1']:.2f} % |",
        "",
        "Figures on a test split come from `python -m eval`, which never writes in here.",
        "",
        "## Use",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        'classify = pipeline("text-classification", model="merged")',
        'classify("my card has not arrived yet")',
        "```",
        "",
        *(_adapter_snippet(facts) if config["regime"] == "lora" else []),
        "## Recipe",
        "",
        "The full configuration is in `config.yaml`, the labels in `labels.json`, sizes and hashes in `manifest.json`.",
        "",
        "Parity with the trained model, largest logit difference over"
        f" {facts['parity']['rows']} validation sentences in float32:",
        "",
        *(f"- {form}: {value:.1e}" for form, value in facts["parity"]["largest_logit_difference"].items()),
        "",
        *_formats(facts["parity"]),
        "## Limits",
        "",
        "The model always answers with one of its intents, also for a text that belongs to none of them.",
    ]
    return "\n".join(lines) + "\n"


def _formats(parity: dict[str, Any]) -> list[str]:
    lines = describe_formats(parity)
    return ["## Formats for serving", "", *(f"- {line}" for line in lines), ""] if lines else []


def describe_formats(parity: dict[str, Any]) -> list[str]:
    """One line for each format of `onnx/`: what its gate measured, or why it was left out."""
    lines = []
    for name, figures in parity.get("formats", {}).items():
        if "accuracy" in figures:
            lines.append(
                f"{name}: validation accuracy {100 * figures['accuracy']:.2f} % ({100 * figures['lost_accuracy']:.2f}"
                f" points lost), same label as float32 for {100 * figures['agreement']:.1f} % of {figures['rows']:,}"
            )
        else:
            worst = max(figures["largest_logit_difference"].values())
            lines.append(f"{name}: float32, every logit within {worst:.0e} of the trained model")
    return lines + [f"{name} was left out: {reason}" for name, reason in parity.get("left_out", {}).items()]


def _adapter_snippet(facts: dict[str, Any]) -> list[str]:
    base = f"base_{len(facts['labels'])}"
    return [
        "The adapter on the base that it was trained on (the adapter brings the trained head):",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForSequenceClassification",
        "",
        f'base = AutoModelForSequenceClassification.from_pretrained("{base}", dtype="float32")',
        'model = PeftModel.from_pretrained(base, "adapter")',
        "```",
        "",
    ]
