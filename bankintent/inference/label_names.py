"""Intents of a table and of a model brought together by name, never by position."""

import difflib
import re
from collections import Counter
from pathlib import Path

import yaml

from bankintent.errors import ConfigError, LabelError
from bankintent.labels import LabelSchema
from bankintent.texts import LISTED, list_some

Renames = dict[str, str]
"""Name of an intent in a table -> its name in the model."""

SIMILAR = 0.6
"""Least similarity (0 to 1) of a name that is suggested in place of another."""

FORM = "Expected lines of `name in the table: name in the model`"


def read_renames(path: Path | None) -> Renames:
    """The renamed intents that a YAML file lists; none without a file.

    Names are taken as they are written: `1: 07` and `yes: no` are texts. Raises ConfigError where
    the file is no such list, or names an intent twice.
    """
    if path is None:
        return {}

    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", FORM) from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise ConfigError(f"{path} is not YAML in UTF-8", FORM) from None

    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path} is no list of renamed intents", FORM)

    renames: Renames = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise ConfigError(f"{path} line {line} does not rename one intent to one other", FORM)
        if key.value in renames:
            raise ConfigError(f'{path} line {line}: "{key.value}" stands twice', "Keep one")
        renames[key.value] = value.value
    return renames


def label_ids(
    intents: list[str], labels: LabelSchema, renames: Renames, table: str, model: str
) -> list[int]:
    """The model's label id of each row's intent, after renaming.

    Intents of the model that do not occur are fine. Raises LabelError that names both sides' names
    where an intent is none of the model's; `table` and `model` are their names in the message.
    """
    _require_targets(renames, labels, model)

    names = [renames.get(intent, intent) for intent in intents]
    unknown = Counter(name for name in names if name not in labels.label2id)
    if unknown:
        unused = [name for name in labels.names if name not in set(names)]
        raise LabelError(
            f"{_describe_unknown(unknown, labels, table, model)}"
            f"{_describe_unused(unused, table, model)}",
            "Rename them in a file of `name in the table: name in the model` and give it with"
            " --map, or name another label_column",
        )
    return [labels.label2id[name] for name in names]


def _describe_unknown(unknown: "Counter[str]", labels: LabelSchema, table: str, model: str) -> str:
    """The intents of a table that a model lacks, with their rows and similar names."""
    texts = []
    for name, count in unknown.most_common(LISTED):
        texts.append(_quote(name, labels, f"{count} x"))

    rows = unknown.total()
    listed = list_some(texts, len(unknown))
    return f"{len(unknown)} intent(s) of {table} ({rows} rows) are not in {model}: {listed}"


def describe_missing(names: list[str], others: LabelSchema, ours: str, theirs: str) -> str:
    """The intents of one model that another lacks, with similar names of the other."""
    texts = [_quote(name, others) for name in names[:LISTED]]
    return f"{len(names)} intent(s) of {ours} are not in {theirs}: {list_some(texts, len(names))}"


def _quote(name: str, labels: LabelSchema, *facts: str) -> str:
    """A name in quotes, with what is known of it and the most similar label in brackets."""
    facts_of_name = list(facts)
    similar = find_similar(name, labels)
    if similar is not None:
        facts_of_name.append(f'similar to "{similar}"')
    if not facts_of_name:
        return f'"{name}"'
    return f'"{name}" ({", ".join(facts_of_name)})'


def find_similar(name: str, labels: LabelSchema) -> str | None:
    """The label most similar to a name, whatever the case and the order of their words."""
    by_words: dict[str, str] = {}
    for label in labels.names:
        by_words.setdefault(_sorted_words(label), label)

    similar = difflib.get_close_matches(_sorted_words(name), by_words, n=1, cutoff=SIMILAR)
    return by_words[similar[0]] if similar else None


def _sorted_words(name: str) -> str:
    words = re.findall(r"\w+", name.casefold().replace("_", " "))
    return " ".join(sorted(words))


def _describe_unused(unused: list[str], table: str, model: str) -> str:
    """The intents of a model that a table lacks; empty where there are none."""
    if not unused:
        return ""
    quoted = [f'"{name}"' for name in unused[:LISTED]]
    return f"; {len(unused)} of {model} are not in {table}: {list_some(quoted, len(unused))}"


def _require_targets(renames: Renames, labels: LabelSchema, model: str) -> None:
    """Raise LabelError where the names to give are no intents of the model."""
    wrong = Counter(name for name in renames.values() if name not in labels.label2id)
    if not wrong:
        return

    hint = FORM
    # The most likely mistake: the two sides of every line exchanged.
    if all(name in labels.label2id for name in renames):
        hint = f"{FORM}; here the names on the left are the model's"
    listed = list_some([f'"{name}"' for name in wrong], len(wrong))
    raise LabelError(f"label_map gives names that are no intents of {model}: {listed}", hint)
