"""Whose work a model stands on: datasets and backbones whose license is known, and how they are recognised."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """One source of training sentences; what is not known of it is None or empty, and is for its owner to say."""

    name: str
    hub_id: str | None = None
    """Its dataset repository on the Hub."""
    license: str | None = None
    credit: str = ""
    """Whom its license asks to name."""
    language: str | None = None
    """ISO 639-1."""
    example: str = "a sentence to classify"
    """A sentence in its field, none of its rows."""
    notes: tuple[str, ...] = ()
    """What its users should know, in whole sentences."""


BANKING = "my card has not arrived yet"
BUNDLED = Origin(
    "the sentences bundled with bankintent",
    license="CC BY 4.0",
    credit="bankintent bundled sentences; its label names are those of BANKING77 (Casanueva et al., 2020, PolyAI).",
    language="en",
    example=BANKING,
    notes=(
        "A large language model wrote the bundled sentences from definitions of the intents: no customer did.",
    ),
)
BANKING77 = Origin(
    "BANKING77",
    "PolyAI/banking77",
    "CC BY 4.0",
    "Casanueva, Temčinas, Gerz, Henderson and Vulić, *Efficient Intent Detection with Dual Sentence Encoders*, 2020;"
    " PolyAI.",
    "en",
    BANKING,
    (
        "Some labels of BANKING77 are suspected to be wrong (Ying and Thomas, *Label Errors in BANKING77*, 2022).",
    ),
)
CLINC150 = Origin(
    "CLINC150",
    "clinc/clinc_oos",
    "CC BY 3.0",
    "Larson et al., *An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction*, 2019.",
    "en",
    "what is the balance of my account",
    ("Its out-of-scope sentences took no part in training.",),
)

BY_REPOSITORY = {
    "PolyAI/banking77": BANKING77,
    "legacy-datasets/banking77": BANKING77,
    "mteb/banking77": BANKING77,
    "clinc/clinc_oos": CLINC150,
    "clinc_oos": CLINC150,
}
BY_SHA256 = {
    "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b": BANKING77,  # train.csv
    "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d": BANKING77,  # test.csv
    "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0": CLINC150,  # data_full.json
}
"""The files that their authors publish on GitHub (PolyAI-LDN/task-specific-datasets, clinc/oos-eval)."""

HUB_NAMES = {"bundled/all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
"""Name of an embedded backbone -> the Hub id of the same model."""

BACKBONE_LICENSES = {"sentence-transformers/all-MiniLM-L6-v2": "apache-2.0"}
"""Hub id -> the Hub's name of the license, only where it was looked up."""


def origins(source: dict[str, Any], name: str) -> list[Origin]:
    """Where the rows came from, as ETL's manifest identifies it, further sentences to train on included.

    `name` is what the user calls a source that is not recognised. A file is recognised by its content, never by its
    name.
    """
    found = [_origin(source, name)]
    for more in filter(None, map(source.get, ("extra_train", "unlabelled"))):
        found.append(_origin(more, ", ".join(more.get("files", {})) or "further sentences"))
    return list(dict.fromkeys(found))


def _origin(source: dict[str, Any], name: str) -> Origin:
    if source["kind"] == "bundled":
        return BUNDLED
    if source["kind"] == "hub":
        repository = source["repository"]
        return BY_REPOSITORY.get(repository, Origin(repository, repository))
    known = {BY_SHA256.get(digest) for digest in source["files"].values()}
    return known.pop() or Origin(name) if len(known) == 1 else Origin(name)


def license_of(base_model: str | None, data: list[Origin]) -> str | None:
    """The Hub's name of the license that a model can be given: its base model's, where all its data has a known one."""
    known = BACKBONE_LICENSES.get(base_model or "")
    return known if all(origin.license for origin in data) else None
