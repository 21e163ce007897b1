"""The model cards of a bundle: README.md of the whole, and one each for merged/ and adapter/, which travel alone."""

import re
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml

from bankintent import console, files
from bankintent.bundle import attribution, layout
from bankintent.bundle.attribution import Origin
from bankintent.measures import metrics

Part = Literal["bundle", "merged", "adapter"]
Facts = dict[str, Any]
DESCRIPTIONS = {
    "head-only": "the encoder is frozen; only the classification head (and pooler) was trained",
    "lora": "low-rank adapters on the encoder's linear layers and the classification head were trained, then merged",
    "full-ft": "all weights were trained",
}
FORMS = {"merged": "`merged/`", "base + adapter": "`adapter/` on its base"}


def write(staging: Path, facts: Facts) -> None:
    """Write the cards of a bundle that is not yet sealed."""
    files.write_text(staging / layout.CARD, render(facts))
    files.write_text(staging / layout.MERGED / layout.CARD, render(facts, "merged"))
    if (staging / layout.ADAPTER).is_dir():
        files.write_text(staging / layout.ADAPTER / layout.CARD, render(facts, "adapter"))


def render(facts: Facts, part: Part = "bundle") -> str:
    """README.md of a bundle or of one of its parts, from the facts of the run (`training.run` gathers them).

    The snippets on it are run from within the folder that holds it.
    """
    origins = attribution.origins(facts["data"]["source"], facts["data"]["name"])
    base = f"base_{len(facts['labels'])}"
    inside = part == "bundle"
    return _template().render(
        facts,
        part=part,
        front_matter=yaml.safe_dump(front_matter(facts, part), sort_keys=False, allow_unicode=True),
        summary=DESCRIPTIONS[facts["config"]["regime"]],
        origins=origins,
        license=attribution.license_of(facts["base_model_id"], origins),
        base_license=attribution.BACKBONE_LICENSES.get(facts["base_model_id"] or ""),
        example=origins[0].example,
        base_name=facts["base_model_id"] or Path(facts["base_model"]).name,
        merged="merged" if inside else ".",
        adapter="adapter" if inside else ".",
        base=base if inside else f"../{base}",
        results=console.markdown_table(
            *metrics.overview(facts["metrics"]["val"], facts["validation"]["intervals"])
        ),
        confused=_confused(facts["validation"]["confused_pairs"]),
        parity_rows=_parity(facts["parity"]["largest_logit_difference"]),
        formats=describe_formats(facts["parity"]),
        recipe=yaml.safe_dump(portable(facts["settings"]), sort_keys=False, allow_unicode=True),
        tracked=facts.get("tracked"),
        teacher=facts.get("distilled_from"),
    )


def front_matter(facts: Facts, part: Part) -> dict[str, Any]:
    """The Hub's metadata of a card (https://huggingface.co/docs/hub/model-cards); what is not known is left out."""
    origins = attribution.origins(facts["data"]["source"], facts["data"]["name"])
    known = attribution.license_of(facts["base_model_id"], origins)
    regime = facts["config"]["regime"]
    fields = {
        "library_name": "peft" if part == "adapter" else "transformers",
        "pipeline_tag": "text-classification",
        "language": _each(origin.language for origin in origins),
        "license": known or "other",
        "license_name": None if known else "unstated",
        "base_model": facts["base_model_id"],
        "base_model_relation": ("adapter" if part == "adapter" else "finetune")
        if facts["base_model_id"]
        else None,
        "datasets": _each(origin.hub_id for origin in origins),
        "metrics": ["accuracy", "f1"],
        "tags": ["intent-classification", "bankintent", regime],
        "model-index": [{"name": facts["name"], "results": [_result(facts, origins[0])]}],
    }
    return {key: value for key, value in fields.items() if value}


def _result(facts: Facts, origin: Origin) -> dict[str, Any]:
    values, source = facts["metrics"]["val"], facts["data"]["source"]
    dataset = {"type": origin.hub_id or "local", "name": origin.name, "split": "validation"}
    if source.get("repository") == origin.hub_id and source.get("revision"):
        dataset["revision"] = source["revision"]
    macro = {"average": "macro"}
    return {
        "task": {"type": "text-classification", "name": "Intent classification"},
        "dataset": dataset,
        "metrics": [
            {"type": "accuracy", "name": "Accuracy", "value": round(values["accuracy"], 4)},
            {
                "type": "f1",
                "name": "Macro F1",
                "value": round(values["macro_f1"], 4),
                "args": macro,
            },
        ],
    }


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
    return lines + [
        f"{name} was left out: {reason}" for name, reason in parity.get("left_out", {}).items()
    ]


def portable(settings: Any) -> Any:
    """Settings without what was not set, and with the last part of every path of this machine."""
    if isinstance(settings, dict):
        return {key: portable(value) for key, value in settings.items() if value is not None}
    if isinstance(settings, str) and Path(settings).expanduser().is_absolute():
        return Path(settings).name
    return settings


def code(text: object) -> str:
    """Any text as one code span, whatever marks are in it."""
    line = " ".join(str(text).split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    gap = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{ticks}{gap}{line}{gap}{ticks}"


def plain(text: object) -> str:
    """Any text as itself: no character of it is markup, and it stays on one line."""
    return re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", " ".join(str(text).split()))


def _confused(pairs: list[dict[str, Any]]) -> list[str]:
    rows = [[code(pair["true"]), code(pair["predicted"]), str(pair["count"])] for pair in pairs]
    return console.markdown_table(["true intent", "predicted", "sentences"], rows) if rows else []


def _parity(differences: dict[str, float]) -> list[str]:
    """A row for each saved form and batch size, from keys such as `base + adapter, batch 32`."""
    keys = (key.rpartition(", batch ") for key in differences)
    rows = [
        [FORMS.get(form, form), size, f"{value:.1e}"]
        for (form, _, size), value in zip(keys, differences.values(), strict=True)
    ]
    return console.markdown_table(["loaded from", "batch size", "largest logit difference"], rows)


def _each(values: Any) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _template() -> jinja2.Template:
    # Not escaped as HTML: this is Markdown, and every foreign text in it goes through `code` or `plain`.
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": code,
        "plain": plain,
        "percent": lambda share: f"{100 * share:.2f} %",
    }
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment.get_template("card.md.jinja")
