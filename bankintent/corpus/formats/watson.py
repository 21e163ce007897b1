"""Watson Assistant: skills and workspaces, each one JSON file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import count, is_objects, require_objects
from bankintent.corpus.formats.languages import Languages
from bankintent.corpus.formats.sentences import (
    ENTITIES,
    ENTITY_TYPES,
    number_rows,
    say_out_of_scope,
    whole,
)
from bankintent.corpus.rows import Row
from bankintent.files import JsonObject

MARKS = {
    "actions",
    "counterexamples",
    "dialog_nodes",
    "entities",
    "language",
    "learning_opt_out",
    "pagination",
    "workspace_id",
}
"""Keys of which a workspace has at least one beside its intents."""

SURE_MARKS = {"counterexamples", "dialog_nodes", "learning_opt_out", "workspace_id"}
"""Those of them that no other tool has."""

NO_INTENT = "irrelevant"
"""The label of counterexamples, which have no intent."""


@dataclass(frozen=True)
class _Skill:
    """One workspace of a file."""

    file: ExportFile
    workspace: JsonObject

    @property
    def language(self) -> str:
        """Its language; "" where it names none."""
        language = self.workspace.get("language")
        return str(language or "")

    @property
    def intents(self) -> list[JsonObject]:
        """Its intents; DataError where they are no objects."""
        place = f"{self.file.name}: intents"
        intents = self.workspace.get("intents")
        return require_objects(intents, place)

    @property
    def counterexamples(self) -> list[JsonObject]:
        """Its sentences without an intent; DataError where they are no objects."""
        place = f"{self.file.name}: counterexamples"
        counterexamples = self.workspace.get("counterexamples")
        return require_objects(counterexamples, place)


def find(files: ExportFiles) -> list[ExportFile]:
    """Files with a workspace that has sentences."""
    candidates = files.with_ending(".json")
    return [file for file in candidates if has_workspace(file.json)]


def has_workspace(content: Any) -> bool:
    """Whether the content of a JSON file is one of Watson Assistant, and so no other's."""
    return any(_workspaces(content))


def _workspaces(content: Any) -> Iterator[JsonObject]:
    """The workspaces of a file: itself, the one of a newer skill, or those of an assistant."""
    if not isinstance(content, dict):
        return

    candidates = [content, content.get("workspace")]
    skills = content.get("assistant_skills")
    if is_objects(skills):
        for skill in skills:
            workspace = skill.get("workspace")
            candidates.append(workspace)

    for candidate in candidates:
        if isinstance(candidate, dict) and _is_workspace(candidate):
            yield candidate


def _is_workspace(value: JsonObject) -> bool:
    """Whether an object has intents as Watson writes them.

    Examples that are plain strings are of another tool.
    """
    intents = value.get("intents")
    if not is_objects(intents):
        return False
    if MARKS.isdisjoint(value):
        return False

    examples = []
    for intent in intents:
        if "intent" not in intent:
            return False
        examples.append(intent.get("examples"))

    # A workspace without any sentence has its marks alone.
    has_sure_mark = not SURE_MARKS.isdisjoint(value)
    if has_sure_mark and not any(examples):
        return True
    return any(map(_has_examples, examples))


def _has_examples(value: Any) -> bool:
    if not is_objects(value):
        return False
    return all("text" in example for example in value)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The examples of all intents of one language; counterexamples have no intent.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    skills = []
    for file in taken:
        content = file.require_json()
        for workspace in _workspaces(content):
            skill = _Skill(file, workspace)
            skills.append(skill)

    languages = _count_languages(skills)
    choice = languages.choose(files.path, config.language)
    chosen = [skill for skill in skills if skill.language in choice.names]

    rows, outside = _read_rows(chosen)
    left = _count_left(chosen)
    notes = _notes(chosen, len(outside))

    return Export(
        {"all": rows},
        whole(outside),
        left | choice.left,
        _names_without(chosen),
        (*choice.notes, *notes),
    )


def _count_languages(skills: list[_Skill]) -> Languages:
    """The languages of the skills, with their sentences."""
    languages = Languages()
    for skill in skills:
        for _, intent in _sentences(skill):
            languages.add(skill.language, intent)

        # A skill without sentences has a language too.
        languages.add(skill.language, "", 0)
    return languages


def _sentences(skill: _Skill) -> Iterator[tuple[Any, Any]]:
    """(text, intent) of every example."""
    titles = _action_titles(skill.workspace)
    for intent in skill.intents:
        name = intent.get("intent")
        label = titles.get(str(name), name)

        place = f'{skill.file.name}: the examples of "{name}"'
        examples = require_objects(intent.get("examples"), place)
        for example in examples:
            yield example.get("text"), label


def _action_titles(workspace: JsonObject) -> dict[str, str]:
    """The title of the action that an intent begins, by the intent's name.

    The intents of actions have made names such as `action_12_intent_3`.
    """
    actions = workspace.get("actions")
    if not is_objects(actions):
        return {}

    titles: dict[str, str] = {}
    for action in actions:
        condition = action.get("condition")
        title = action.get("title")
        if not isinstance(condition, dict) or not isinstance(title, str):
            continue

        # Names that people gave say more than the titles.
        intent = str(condition.get("intent"))
        if intent.startswith("action_"):
            titles[intent] = title

    # Two actions of one title are two intents.
    counts = Counter(titles.values())
    single: dict[str, str] = {}
    for intent, title in titles.items():
        if counts[title] == 1:
            single[intent] = title
    return single


def _read_rows(chosen: list[_Skill]) -> tuple[list[Row], list[Row]]:
    """(rows of intents, rows without one)."""
    rows: list[Row] = []
    outside: list[Row] = []
    numbers: Counter[str] = Counter()

    for skill in chosen:
        # The rows of a file are numbered on from one of its skills to the next.
        name = skill.file.name
        sentences = _sentences(skill)
        part = number_rows(skill.file, sentences, numbers[name] + 1)
        numbers[name] += len(part)
        rows += part

        pairs = []
        for example in skill.counterexamples:
            pair = (example.get("text"), NO_INTENT)
            pairs.append(pair)

        outside += number_rows(skill.file, pairs, numbers[name] + 1)
        numbers[name] += len(pairs)
    return rows, outside


def _names_without(chosen: list[_Skill]) -> tuple[str, ...]:
    names = []
    for skill in chosen:
        for intent in skill.intents:
            if not intent.get("examples"):
                name = str(intent.get("intent"))
                names.append(name)

    return tuple(names)


def _count_left(chosen: list[_Skill]) -> dict[str, int]:
    left: Counter[str] = Counter()
    for skill in chosen:
        for intent in skill.intents:
            examples = intent.get("examples") or []
            for example in examples:
                mentions = example.get("mentions")
                left[ENTITIES] += count(mentions)

        workspace = skill.workspace
        left[ENTITY_TYPES] += count(workspace.get("entities"))
        left["dialog nodes"] += count(workspace.get("dialog_nodes"))
        left["actions"] += count(workspace.get("actions"))

    return dict(left)


def _notes(chosen: list[_Skill], outside: int) -> list[str]:
    notes = []
    if len(chosen) > 1:
        notes.append(f"The sentences of {len(chosen)} skills are read as one dataset.")

    has_titles = any(_action_titles(skill.workspace) for skill in chosen)
    if has_titles:
        notes.append("Intents of actions are named by the titles of their actions.")

    notes += say_out_of_scope("Counterexamples", outside)
    return notes


FORMAT = Format("Watson Assistant", "Watson Assistant", find, read)
