"""Datasets and backbones whose license is known, and how each is recognised."""

from dataclasses import dataclass

from bankintent import public_names
from bankintent.corpus.rows import SourceIdentity


@dataclass(frozen=True)
class Origin:
    """One source of training sentences; a field that is not known is None or empty."""

    name: str
    hub_id: str | None = None
    """Its dataset repository on the Hub."""
    license: str | None = None
    credit: str = ""
    """The authors that its license asks to name."""
    language: str | None = None
    """ISO 639-1."""
    example: str = "a sentence to classify"
    """A sentence in its field that is none of its rows."""
    notes: tuple[str, ...] = ()
    """Warnings to its users, in whole sentences."""


BANKING_EXAMPLE = "my card has not arrived yet"
"""One for both datasets: the bundled sentences have the intents of BANKING77."""

BUNDLED = Origin(
    name="the sentences bundled with bankintent",
    license="CC BY 4.0",
    credit=(
        "bankintent bundled sentences; its label names are those of BANKING77"
        " (Casanueva et al., 2020, PolyAI)."
    ),
    language="en",
    example=BANKING_EXAMPLE,
    notes=(
        "A large language model wrote the bundled sentences from definitions of the intents:"
        " no customer did.",
    ),
)
BANKING77 = Origin(
    name="BANKING77",
    hub_id="PolyAI/banking77",
    license="CC BY 4.0",
    credit=(
        "Casanueva, Temčinas, Gerz, Henderson and Vulić,"
        " *Efficient Intent Detection with Dual Sentence Encoders*, 2020; PolyAI."
    ),
    language="en",
    example=BANKING_EXAMPLE,
    notes=(
        "Some labels of BANKING77 are suspected to be wrong"
        " (Ying and Thomas, *Label Errors in BANKING77*, 2022).",
    ),
)
CLINC150 = Origin(
    name="CLINC150",
    hub_id="clinc/clinc_oos",
    license="CC BY 3.0",
    credit=(
        "Larson et al.,"
        " *An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction*, 2019."
    ),
    language="en",
    example="what is the balance of my account",
    notes=("Its out-of-scope sentences took no part in training.",),
)

BY_REPOSITORY = {
    "PolyAI/banking77": BANKING77,
    "legacy-datasets/banking77": BANKING77,
    "mteb/banking77": BANKING77,
    "clinc/clinc_oos": CLINC150,
    "clinc_oos": CLINC150,
}
"""Hub repository -> the dataset: the authors' own repositories, former names and mirrors."""

BY_SHA256 = {
    "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b": BANKING77,  # train.csv
    "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d": BANKING77,  # test.csv
    "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0": CLINC150,  # data_full.json
}
"""sha256 -> the dataset, for the files that their authors publish on GitHub
(PolyAI-LDN/task-specific-datasets and clinc/oos-eval)."""

HUB_NAMES = {"bundled/all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
"""Name of an embedded backbone -> the Hub id of the same model."""

BACKBONE_LICENSES = {"sentence-transformers/all-MiniLM-L6-v2": "apache-2.0"}
"""Hub id -> the Hub's name of the license, only where it was looked up."""


def public_name(backbone: str) -> str:
    """The Hub id of an embedded backbone; of a folder, its name without the machine."""
    return HUB_NAMES.get(backbone, public_names.path(backbone))


def origins(source: SourceIdentity, name: str) -> list[Origin]:
    """The sources of the rows, further training sentences included, without repetition.

    `source` is what ETL's manifest records. `name` is the user's name for a source that is not
    recognised. A file is recognised by its content, never by its name.
    """
    sources = [_recognise(source, name)]
    for key in ("extra_train", "unlabelled"):
        further = source.get(key)
        if further:
            file_names = ", ".join(further.get("files", {}))
            sources.append(_recognise(further, file_names or "further sentences"))
    return list(dict.fromkeys(sources))


def _recognise(source: SourceIdentity, name: str) -> Origin:
    if source["kind"] == "bundled":
        return BUNDLED

    if source["kind"] == "hub":
        repository = source["repository"]
        unknown = Origin(name=repository, hub_id=repository)
        return BY_REPOSITORY.get(repository, unknown)

    # A file that is not recognised adds None to the set. One such file makes the whole source
    # unknown, because its license may differ.
    matches = {BY_SHA256.get(digest) for digest in source["files"].values()}
    if len(matches) == 1:
        return matches.pop() or Origin(name)
    return Origin(name)


def license_of(base_model: str | None, data: list[Origin]) -> str | None:
    """The Hub's name of the license that a model can be given, None where it cannot be known.

    It is that of the base model, provided that all training data has a known license.
    """
    # Data without a license may forbid what the base model's allows.
    if not all(origin.license for origin in data):
        return None
    return BACKBONE_LICENSES.get(base_model or "")
