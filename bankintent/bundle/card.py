"""The model cards of a bundle: README.md of the whole, and one each for merged/ and adapter/.

The parts have cards of their own because they also travel alone.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml

from bankintent import console, files
from bankintent.bundle import attribution, formats, layout
from bankintent.bundle.attribution import Origin
from bankintent.files import JsonObject
from bankintent.measures import metrics
from bankintent.measures.shares import in_percent

Part = Literal["bundle", "merged", "adapter"]

Facts = JsonObject
"""The record of a training run as plain JSON values, which `training/record.py` makes."""

DESCRIPTIONS = {
    "head-only": "the encoder is frozen; only the classification head (and pooler) was trained",
    "lora": (
        "low-rank adapters on the encoder's linear layers and the classification head were"
        " trained, then merged"
    ),
    "full-ft": "all weights were trained",
}
"""Regime -> its summary on a card."""

FORMS = {"merged": "`merged/`", "base + adapter": "`adapter/` on its base"}
"""Saved form as in the parity record -> its name on a card."""


def write(staging: Path, facts: Facts) -> None:
    """Write the cards of a bundle that is not yet sealed."""
    found = {entry.name for entry in staging.iterdir()}
    files.write_text(staging / layout.CARD, card_text(facts, found=found))
    files.write_text(staging / layout.MERGED / layout.CARD, card_text(facts, "merged"))

    if (staging / layout.ADAPTER).is_dir():
        files.write_text(staging / layout.ADAPTER / layout.CARD, card_text(facts, "adapter"))


def card_text(facts: Facts, part: Part = "bundle", found: Collection[str] = ()) -> str:
    """README.md of a bundle or of one of its parts, from the facts of the run.

    The snippets on it are run from within the folder that holds it. `found` are the names in the
    bundle's folder: of what is not in every bundle, the card lists what is there.
    """
    regime = facts["config"]["regime"]
    base_model_id = facts["base_model_id"]
    origins = _origins(facts)
    validation = facts["validation"]
    results = metrics.overview(facts["metrics"]["val"], validation["intervals"])

    return _template().render(
        facts,
        part=part,
        found=found,
        front_matter=_yaml(front_matter(facts, part)),
        summary=DESCRIPTIONS[regime],
        origins=origins,
        license=attribution.license_of(base_model_id, origins),
        base_license=attribution.BACKBONE_LICENSES.get(base_model_id or ""),
        # The first origin is the dataset's own; others only add training sentences.
        example=origins[0].example,
        base_name=base_model_id or Path(facts["base_model"]).name,
        results=console.markdown_table(*results),
        confused=_confused_table(validation["confused_pairs"]),
        parity_rows=_parity_table(facts["parity"]["largest_logit_difference"]),
        formats=formats.describe_formats(facts["parity"]),
        recipe=_yaml(portable(facts["settings"])),
        tracked=facts.get("tracked"),
        teacher=facts.get("distilled_from"),
        **_places(facts, part),
    )


def _origins(facts: Facts) -> list[Origin]:
    data = facts["data"]
    return attribution.origins(data["source"], data["name"])


def _places(facts: Facts, part: Part) -> dict[str, str]:
    """The model folders as the snippets of a card name them, relative to its own folder."""
    base = f"base_{len(facts['labels'])}"
    if part == "bundle":
        return {"merged": layout.MERGED, "adapter": layout.ADAPTER, "base": base}
    return {"merged": ".", "adapter": ".", "base": f"../{base}"}


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def front_matter(facts: Facts, part: Part) -> JsonObject:
    """The Hub's metadata of a card; keys without a known value are left out.

    https://huggingface.co/docs/hub/model-cards
    """
    origins = _origins(facts)
    base_model_id = facts["base_model_id"]
    license_id = attribution.license_of(base_model_id, origins)
    result = _evaluation_result(facts, origins[0])

    fields = {
        "library_name": "peft" if part == "adapter" else "transformers",
        "pipeline_tag": "text-classification",
        "language": _distinct(origin.language for origin in origins),
        # The Hub asks for a `license_name` next to a license that is not on its list.
        "license": license_id or "other",
        "license_name": None if license_id else "unstated",
        "base_model": base_model_id,
        "base_model_relation": _base_model_relation(base_model_id, part),
        "datasets": _distinct(origin.hub_id for origin in origins),
        "metrics": ["accuracy", "f1"],
        "tags": ["intent-classification", "bankintent", facts["config"]["regime"]],
        "model-index": [{"name": facts["name"], "results": [result]}],
    }
    return {key: value for key, value in fields.items() if value}


def _base_model_relation(base_model_id: str | None, part: Part) -> str | None:
    if not base_model_id:
        return None
    return "adapter" if part == "adapter" else "finetune"


def _evaluation_result(facts: Facts, origin: Origin) -> JsonObject:
    """The validation figures in the Hub's model-index form."""
    figures = facts["metrics"]["val"]
    source = facts["data"]["source"]

    split = "cross-validation" if facts["validation"]["cross"] else "validation"
    dataset = {"type": origin.hub_id or "local", "name": origin.name, "split": split}
    # A mirror of a known dataset is listed under its original, which lacks the mirror's revision.
    if source.get("repository") == origin.hub_id and source.get("revision"):
        dataset["revision"] = source["revision"]

    accuracy = {"type": "accuracy", "name": "Accuracy", "value": round(figures["accuracy"], 4)}
    macro_f1 = {
        "type": "f1",
        "name": "Macro F1",
        "value": round(figures["macro_f1"], 4),
        "args": {"average": "macro"},
    }
    return {
        "task": {"type": "text-classification", "name": "Intent classification"},
        "dataset": dataset,
        "metrics": [accuracy, macro_f1],
    }


def portable(settings: Any) -> Any:
    """Settings without those that are None, each absolute path shortened to its last part."""
    if isinstance(settings, dict):
        return {key: portable(value) for key, value in settings.items() if value is not None}

    # A card is public: folders may name a user or a customer.
    is_path = isinstance(settings, str) and Path(settings).expanduser().is_absolute()
    if is_path:
        return Path(settings).name
    return settings


def code(text: object) -> str:
    """Any text as one Markdown code span, including text that holds backticks."""
    line = _one_line(text)
    runs = re.findall("`+", line)
    longest = max(map(len, runs), default=0)

    # CommonMark: the fence is longer than every run inside, and a space parts it from a backtick.
    fence = "`" * (longest + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def plain(text: object) -> str:
    """Any text as itself: no character of it is markup, and it stays on one line."""
    # Beyond CommonMark: bars part cells of tables, and the Hub reads formulas between dollar signs.
    return re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", _one_line(text))


def _one_line(text: object) -> str:
    # A line break would end a heading or the row of a table.
    return " ".join(str(text).split())


def thousands(number: int) -> str:
    """A number with commas between the thousands."""
    return f"{number:,}"


def _confused_table(pairs: list[JsonObject]) -> list[str]:
    """Lines of a Markdown table; none where nothing was confused."""
    if not pairs:
        return []

    header = ["true intent", "predicted", "sentences"]
    rows = []
    for pair in pairs:
        true_intent = code(pair["true"])
        predicted = code(pair["predicted"])
        rows.append([true_intent, predicted, str(pair["count"])])
    return console.markdown_table(header, rows)


def _parity_table(differences: dict[str, float]) -> list[str]:
    """A row for each saved form and batch size, from keys such as `base + adapter, batch 32`."""
    header = ["loaded from", "batch size", "largest logit difference"]
    rows = []
    for key, difference in differences.items():
        form, _, batch_size = key.rpartition(", batch ")
        title = FORMS.get(form, form)
        rows.append([title, batch_size, f"{difference:.1e}"])

    return console.markdown_table(header, rows)


def _distinct(values: Iterable[str | None]) -> list[str]:
    """The values that are known, each once, in their order."""
    return list(dict.fromkeys(filter(None, values)))


def _template() -> jinja2.Template:
    # Not escaped as HTML: this is Markdown, and every foreign text in it goes through `code` or
    # `plain`.
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # A fact that is missing is an error, not a gap in a sentence.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    environment.filters["percent"] = in_percent
    for text_filter in (code, plain, thousands):
        environment.filters[text_filter.__name__] = text_filter
    return environment.get_template("card.md.jinja")
