"""The JSON Schemas and docs/reference are what the code gives; schemas take what the reader takes."""

import ast
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY
from pydantic import ValidationError

import bankintent
from bankintent import configfile, typed_yaml
from bankintent.__main__ import VERBS
from bankintent.config import Section
from bankintent.errors import ConfigError
from bankintent.first_steps import editor_line
from docs.tools import (
    command_page,
    config_pages,
    http_page,
    python_page,
    reference,
    schemas,
    wording,
)
from docs.tools.kinds import BY_NAME, KINDS, Kind

SHIPPED = sorted((REPOSITORY / "configs").rglob("*.yaml"))

KIND_OF_STEM = {"audit", "baseline", "compare", "data", "serve"}
"""Names of shipped files that are their kinds; the others are recipes of training."""


class EditorLoader(yaml.SafeLoader):
    """YAML 1.2, as editors read it: `1e-3` is a number, `yes` a text."""


EditorLoader.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("merge", "<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    EditorLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})$"), [*first, ""]
    )


def kind_of(path: Path) -> Kind:
    return BY_NAME[path.stem if path.stem in KIND_OF_STEM else "train"]


@functools.cache
def validator_of(kind: Kind) -> Any:
    schema = schemas.schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def is_valid(kind: Kind, text: str) -> bool:
    """Whether an editor takes a text as a file of this kind."""
    return validator_of(kind).is_valid(EditorLoader(text).get_single_data())


def is_read(kind: Kind, text: str, folder: Path) -> bool:
    """Whether our own reader takes it, with all that a command line must say."""
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    example = yaml.safe_load(kind.example)
    flags = {key: example[key] for key in kind.on_the_command_line if f"{key}:" not in text}
    try:
        configfile.load(kind.model, path, **flags)
    except ConfigError:
        return False
    return True


def test_every_generated_file_is_what_the_code_gives() -> None:
    stale = []
    for path, text in reference.generated().items():
        target = REPOSITORY / path
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            stale.append(str(path))
    assert not stale, f"run `{reference.COMMAND}`: {', '.join(stale)} differ from the code"


def test_no_schema_is_left_of_a_kind_that_is_gone() -> None:
    committed = {path.name for path in (REPOSITORY / schemas.FOLDER).iterdir()}
    assert committed == {schemas.path_of(kind).name for kind in KINDS}


def test_every_config_that_a_file_can_hold_has_a_kind() -> None:
    """A new class of config is found here; ExplainConfig is read from the command line alone."""
    top = {model for model in Section.__subclasses__() if model.__name__.endswith("Config")}
    for base in list(Section.__subclasses__()):
        top |= {model for model in base.__subclasses__() if model.__name__.endswith("Config")}
    names = {model.__name__ for model in top} - {"TrackingConfig", "ExplainConfig"}
    assert names <= {kind.model.__name__ for kind in KINDS}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_shipped_config_is_valid_and_names_its_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    kind = kind_of(path)
    assert is_valid(kind, text)

    first = text.splitlines()[0]
    assert first.startswith(editor_line.PREFIX)
    named = path.parent / first.removeprefix(editor_line.PREFIX)
    assert os.path.normpath(named) == str(REPOSITORY / schemas.path_of(kind))
    assert named.is_file()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_example_of_a_kind_is_valid_and_read(kind: Kind, tmp_path: Path) -> None:
    assert is_valid(kind, kind.example)
    assert is_read(kind, kind.example, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_unknown_key_is_refused_by_schema_and_reader(kind: Kind, tmp_path: Path) -> None:
    text = f"{kind.example}no_such_key: 1\n"
    assert not is_valid(kind, text)
    assert not is_read(kind, text, tmp_path)


BASE = {
    "data": "dataset_name: x\n",
    "train": "model_name: x\noutput_dir: y\n",
    "eval": "checkpoint_path: x\n",
    "compare": "name: x\nrecipes: {a: b.yaml}\n",
    "score": "input: x\noutput: y\nmodel_dir: z\n",
}

ACCEPTED = [
    ("data", "text_column: 1"),
    ("data", "text_column: 1.50"),
    ("data", "text_column: yes"),
    ("data", "text_column: true"),
    ("data", "text_column: null"),
    ("data", "text_column: ~"),
    ("data", "text_column: 2024-01-01"),
    ("data", "revision: 1e3"),
    ("data", "header: none"),
    ("data", "delimiter: tab"),
    ("data", 'delimiter: "\\t"'),
    ("data", "delimiter: ;"),
    ("data", "keep_columns: [channel, 2, no]"),
    ("data", "patch: a.json"),
    ("data", "patch: [a.json, 2]"),
    ("data", "rare: merge:other"),
    ("data", "rare: drop"),
    ("data", "seed: '7'"),
    ("data", "seed: 7.0"),
    ("data", "max_chars: 1_000"),
    ("data", "test_split: '0.2'"),
    ("data", "test_split: 2e-1"),
    ("data", "output_dir: 2024"),
    ("train", "lr: 1e-3"),
    ("train", "lr: '1e-3'"),
    ("train", "lr: .5"),
    ("train", "epochs: ' 3 '"),
    ("train", "label_names: yes"),
    ("train", "label_names: Off"),
    ("train", "label_names: 1"),
    ("train", "label_names: 'True'"),
    ("train", "few_shot: null"),
    ("train", "contrastive: null"),
    ("train", "regime: lora\ncontrastive: {}"),
    ("train", "decision: null"),
    ("train", "decision: {keep_in_scope: balanced, out_of_scope: null}"),
    ("train", "lora: {target_modules: auto}"),
    ("train", "lora: {target_modules: [a, 1]}"),
    ("train", "regime: lora"),
    ("train", "lora: &a {r: 4}\n"),
    ("train", "regime: lora\ncontrastive: {<<: {steps: 3}, lr: 1e-4}"),
    ("eval", "by: [length, 3]"),
    ("compare", "sizes: [5, all]"),
    ("compare", "set: {epochs: 2, lora.r: 8, lr: 1e-4}"),
    ("compare", "sweep: {space: {a: {lr: {low: 1e-4, high: 5e-3, log: true}, lora.r: [8, 16]}}}"),
    ("compare", "sweep: {choose_on: {kfold: 5}, space: {a: {keep: [best, last, null]}}}"),
    ("compare", "sweep: null"),
    ("score", "prefix: ''"),
    ("score", "threads: null"),
    ("audit", ""),
    ("audit", "reviewed: [a.json]"),
    ("audit", "name: 2024"),
    ("baseline", "references: [tfidf]\nlabel_texts: {1: one, b: 2}"),
    ("serve", "root_path: /a/b"),
    ("serve", "allowed_hosts: null"),
    ("serve", "compat: [rasa, clu]"),
    ("policy", "target: {wrong: 10, handover: 1}"),
]


@pytest.mark.parametrize(("kind", "line"), ACCEPTED)
def test_a_schema_takes_what_the_reader_takes(kind: str, line: str, tmp_path: Path) -> None:
    text = f"{BASE.get(kind, '')}{line}\n"
    assert is_read(BY_NAME[kind], text, tmp_path)
    assert is_valid(BY_NAME[kind], text)


WRITTEN = (
    *("1", "0", "-1", "3.0", "1.5", ".5", "5e-1", "1_000", "010", "' 3 '", "'0.9'", "true", "yes"),
    *("Off", "null", "~", "auto", "none", "val", "a b", "''", "2024-01-01", "1:30", "[]", "[1]"),
    *("[a, b]", "[1, a]", "[true]", "{}", "{a: 1}", "{a: {b: [1, 2]}}", "{kfold: 3}"),
)
"""Values as people write them, for any key."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_schema_refuses_a_value_that_the_reader_takes(kind: Kind) -> None:
    """Each key with each of WRITTEN, alone in its file."""
    validator = jsonschema.Draft202012Validator(without_required(schemas.schema(kind)))
    taken = 0
    for path in dotted_keys(kind):
        for value in WRITTEN:
            text = nest(path.split("."), value)
            if is_refused(kind, path, text):
                continue
            taken += 1
            assert validator.is_valid(EditorLoader(text).get_single_data()), text
    assert taken > len(kind.model.model_fields)


def dotted_keys(kind: Kind) -> list[str]:
    """The keys of a kind and of its sections."""
    paths = []
    for group in config_pages.groups_of(kind):
        paths += [key.path for key in group.keys if "*" not in key.path]
        if group.path and "*" not in group.path:
            paths.append(group.path)
    return paths


def nest(keys: list[str], value: str) -> str:
    """The YAML of a value under some keys."""
    return f"{keys[0]}: {value}" if len(keys) == 1 else f"{keys[0]}: {{{nest(keys[1:], value)}}}"


def without_required(node: Any) -> Any:
    """A schema that takes a file with any of its keys alone."""
    if isinstance(node, dict):
        return {key: without_required(child) for key, child in node.items() if key != "required"}
    return [without_required(child) for child in node] if isinstance(node, list) else node


def is_refused(kind: Kind, path: str, text: str) -> bool:
    """Whether the reader has something against a key's own value; others may be missing."""
    values = typed_yaml.parse(text, kind.model)
    try:
        kind.model.model_validate(values)
    except ValidationError as error:
        keys = path.split(".")
        # What is missing, or is about several keys, says nothing of this value.
        return any(
            # In between stand the tags of unions.
            set(keys) <= set(detail["loc"]) and detail["type"] != "missing"
            for detail in error.errors()
        )
    return False


REFUSED = [
    ("data", "text_column: [a]"),
    ("data", "text_column: {a: b}"),
    ("data", "dataset_name: null"),
    ("data", "split: half"),
    ("data", "rare: keep"),
    ("data", "rare: 'merge: '"),
    ("data", "test_split: 1"),
    ("data", "test_split: ten"),
    ("data", "seed: 1.5"),
    ("data", "seed: true"),
    ("data", "keep_columns: channel"),
    ("data", "folds: 21"),
    ("train", "epochs: 0"),
    ("train", "epochs: null"),
    ("train", "epochs: many"),
    ("train", "lora: 8"),
    ("train", "lora: null"),
    ("train", "lora: {rank: 8}"),
    ("train", "distill: {temperature: 2}"),
    ("train", "label_names: 2"),
    ("train", "label_names: maybe"),
    ("train", "tracking: {models: all}"),
    ("compare", "seeds: []"),
    ("compare", "seeds: [true]"),
    ("compare", "sizes: [0]"),
    ("compare", "recipes: {a b: c.yaml}"),
    ("compare", "sweep: {space: {a: {lr: 1e-3}}}"),
    ("score", "runtime: cuda"),
    ("audit", "name: a/b"),
    ("serve", "compat: [dialogflow]"),
    ("serve", "limits: {max_body: 5}"),
    ("policy", "confidence: 1.0"),
    ("audit", "- a list"),
]


@pytest.mark.parametrize(("kind", "line"), REFUSED)
def test_a_wrong_value_is_refused_by_schema_and_reader(
    kind: str, line: str, tmp_path: Path
) -> None:
    base = BASE.get(kind, "")
    # A key that the base has already is replaced.
    base = re.sub(rf"^{line.partition(':')[0]}:.*\n", "", base, flags=re.M)
    text = f"{base}{line}\n"
    assert not is_valid(BY_NAME[kind], text)
    assert not is_read(BY_NAME[kind], text, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_key_of_a_schema_says_what_it_is(kind: Kind) -> None:
    schema = schemas.schema(kind)
    for definition in [schema, *schema.get("$defs", {}).values()]:
        assert definition["description"]
        assert definition["additionalProperties"] is False
        for key, node in definition["properties"].items():
            assert "description" in node or "$ref" in node, key


def all_defaults(node: Any) -> list[str]:
    found = []
    if isinstance(node, dict):
        for key, value in node.items():
            found += [json.dumps(value)] if key == "default" else all_defaults(value)
    elif isinstance(node, list):
        for item in node:
            found += all_defaults(item)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_default_is_a_path_of_a_machine(kind: Kind) -> None:
    for default in all_defaults(schemas.schema(kind)):
        assert not default.startswith('"/')
        assert str(REPOSITORY) not in default


def test_a_file_below_the_working_directory_names_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    line = editor_line.editor_line("train", Path("configs/mine"))
    assert line == "# yaml-language-server: $schema=../schemas/train.schema.json\n"
    assert editor_line.editor_line("data", REPOSITORY / "mine") == (
        "# yaml-language-server: $schema=../configs/schemas/data.schema.json\n"
    )


def test_a_file_elsewhere_names_no_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert editor_line.editor_line("train", tmp_path) == ""
    monkeypatch.chdir(tmp_path)
    assert editor_line.editor_line("train", Path("configs/mine")) == ""


def test_no_line_has_a_path_with_a_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    place = project / "the schemas"
    place.mkdir(parents=True)
    (place / "data.schema.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(editor_line, "SCHEMAS", place)
    monkeypatch.chdir(project)
    assert editor_line.editor_line("data", Path("mine")) == ""


PAGES = {path: text for path, text in reference.generated().items() if path.suffix == ".md"}


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_page_is_plain_markdown(path: Path) -> None:
    """Markup beside anchors would show on GitHub, and a bare <name> vanish."""
    text = re.sub(r"^```.*?^```$", "", PAGES[path], flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    text = re.sub(r'^<a id="[\w.-]+"></a>$', "", text, flags=re.M)
    assert not re.findall(r"<[A-Za-z/!][^>\n]*>?", text)
    assert text.count("\n# ") + text.startswith("# ") == 1


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", PAGES[path]):
        if target.startswith("http"):
            continue
        page = Path(os.path.normpath(path.parent / target)) if target else path
        text = PAGES.get(page) or (REPOSITORY / page).read_text(encoding="utf-8")
        if anchor:
            assert anchor in anchors_of(text), f"{target}#{anchor}"


def anchors_of(text: str) -> list[str]:
    """The names by which parts of a page can be linked to: those given, and those of headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return [*re.findall(r'<a id="([^"]+)"></a>', text), *slugs]


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_no_anchor_is_given_twice(path: Path) -> None:
    given = re.findall(r'<a id="([^"]+)"></a>', PAGES[path])
    assert len(given) == len(set(given))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_key_of_a_kind_is_on_its_page(kind: Kind) -> None:
    text = PAGES[config_pages.FOLDER / f"{kind.name}.md"]
    schema = schemas.raw_schema(kind.model)
    for key in schema["properties"]:
        assert f'<a id="{kind.name}.{key}"></a>' in text
    for definition in schema.get("$defs", {}).values():
        for key in definition["properties"]:
            assert f".{key}`" in text


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("Which. a: one; b: two.", ["a", "b"], "Which.\n\n- `a`: one.\n- `b`: two."),
        ("a: one; b:NAME: two.", ["a", "b:NAME"], "- `a`: one.\n- `b:NAME`: two."),
        ("a: one. b: two. Default: b.", ["a", "b"], "- `a`: one.\n- `b`: two.\n\nDefault: b."),
        ("Which; a: one.", ["a", "b"], "Which; `a`: one."),
        ("true keeps it.", ["true", "false"], "`true` keeps it."),
        ("the folder: to write.", [], "The folder: to write."),
    ],
)
def test_a_docstring_that_explains_values_becomes_a_list(
    text: str, values: list[str], expected: str
) -> None:
    assert wording.prose(text, values) == expected


def test_the_page_of_commands_has_every_command_and_every_option() -> None:
    text = PAGES[command_page.PAGE]
    verbs = [verb for panel in VERBS.values() for verb in panel]
    for verb in [*verbs, "audit review", "audit apply"]:
        assert f"### `{verb}`\n\n```text\nbankintent {verb} " in text
    for option in ("`--restore` `VERSION`", "`--data-dir`, `--data` `PATH`", "`--with-texts`"):
        assert f"| {option} |" in text
    assert "bankintent train --config YAML [OPTIONS]\npython -m multiregime --config" in text


API = http_page.document()


def test_the_page_of_the_api_has_every_endpoint_and_body() -> None:
    text = PAGES[http_page.PAGE]
    for path, methods in API["paths"].items():
        for method in methods:
            assert f"### `{method.upper()} {path}`" in text
    for name, component in API["components"]["schemas"].items():
        assert ("properties" in component) == (f"### {name}\n" in text)


def test_every_endpoint_of_json_has_an_example() -> None:
    endpoints = {
        f"{method.upper()} {path}" for path, methods in API["paths"].items() for method in methods
    }
    without = {name for name in endpoints if "/versions/" in name} | {"GET /metrics"}
    assert http_page.read_examples().keys() == endpoints - without


@pytest.mark.parametrize("name", http_page.read_examples())
def test_the_examples_of_the_api_are_of_the_documented_form(name: str) -> None:
    method, _, path = name.partition(" ")
    operation = API["paths"][path][method.lower()]
    for example in http_page.read_examples()[name]:
        require_valid(operation["responses"]["200"], example["answer"])
        if "body" in example:
            require_valid(operation["requestBody"], example["body"])


def require_valid(part: dict[str, Any], value: Any) -> None:
    schema = part["content"]["application/json"]["schema"] | {"components": API["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def test_the_page_of_the_api_does_not_depend_on_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANKINTENT_API_KEY", "secret")
    assert http_page.document() == API
    assert os.environ["BANKINTENT_API_KEY"] == "secret"


def test_every_public_name_of_python_is_on_its_page() -> None:
    grouped = [name for names in python_page.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(bankintent.__all__)
    text = PAGES[python_page.PAGE]
    for name in grouped:
        assert f"### `{name}`\n" in text
    for method in ("predict", "probabilities", "logits", "features", "explain"):
        assert f"#### `Model.{method}`\n\n```python\n{method}(text" in text
    assert "| `score` | `float` | Probability" in text


def test_a_signature_is_written_with_its_types_and_without_quotes() -> None:
    source = 'def f(a: "int | None", *, b: str = \'x\', **c: "Any") -> "Floats": pass'
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    expected = 'f(a: int | None, *, b: str = "x", **c: Any) -> NDArray[np.floating]'
    assert python_page.signature("f", function) == expected


def test_the_snippets_without_bankintent_are_those_of_the_model_card() -> None:
    """tests/test_card.py runs them there, on a bundle."""
    text = PAGES[python_page.PAGE]
    for library in ("pipeline(", "PeftModel", "onnxruntime"):
        assert text.count(library) >= 1
    assert "{{" not in text
