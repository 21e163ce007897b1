"""The language of a dataset's sentences, and what to say where the encoder does not read it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

ENGLISH = ("en", "pcm")
"""Codes of English; short English sentences are sometimes taken for Nigerian Pidgin (pcm)."""

MULTILINGUAL_ENCODER = "intfloat/multilingual-e5-small"
"""A Hub name: BERT with the vocabulary of XLM-R, about a hundred languages, 118 M parameters."""

SAMPLED_ROWS = 1000

ROWS_TOGETHER = 10
"""Rows that are judged as one text where a single one tells nothing: few words look like many
languages."""

MOST_CHARACTERS = 300
"""Of one row: enough to tell, and a bound on the work."""

LEAST_CONFIDENCE = 0.9
"""Probability from which another language than English counts as known: no sentence of BANKING77
or CLINC150 has another by it."""

NO_LANGUAGE = "zxx"
"""The code of texts without words, such as numbers of orders."""

NOTED_SHARE = 0.1
"""Share of a sample in other languages than English from which it is worth a note."""

NAMED_SHARE = 0.05
"""Share of a sample from which a language is named."""

NAMES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


Rows = TypeVar("Rows", Sequence[str], NDArray[np.int64])


@dataclass(frozen=True)
class Languages:
    """The languages of a sample of a dataset's sentences."""

    shares: dict[str, float]
    """ISO 639 code -> share of the sample, the largest first; those below NAMED_SHARE are left
    out."""

    def describe(self) -> str:
        """The languages by name, for example `German`, or `English (70 %), German (30 %)`."""
        if not self.shares:
            return "not clear"
        if len(self.shares) == 1:
            return name(next(iter(self.shares)))
        return ", ".join([f"{name(code)} ({share:.0%})" for code, share in self.shares.items()])

    @property
    def is_foreign(self) -> bool:
        """Whether a good part of the sample is in other languages than English."""
        others = [share for code, share in self.shares.items() if code not in ENGLISH]
        return sum(others) >= NOTED_SHARE


def detect(texts: Sequence[str]) -> Languages:
    """The languages of some texts, judged on at most SAMPLED_ROWS of them at even distances."""
    # It takes most of a second to load, which `--help` and a wrong config should not.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    rows = [text[:MOST_CHARACTERS] for text in sample(texts)]
    counts: Counter[str] = Counter()
    for start in range(0, len(rows), ROWS_TOGETHER):
        counts.update(_judge(identifier, rows[start : start + ROWS_TOGETHER]))

    shares = {}
    for code, count in counts.most_common():
        share = round(count / len(rows), 3)
        if share >= NAMED_SHARE:
            shares[code] = share
    return Languages(shares)


def sample(rows: Rows) -> Rows:
    """At most SAMPLED_ROWS of a list or an array, at even distances."""
    step = max(1, len(rows) // SAMPLED_ROWS)
    return rows[::step][:SAMPLED_ROWS]


def of_each(texts: Sequence[str]) -> list[str | None]:
    """ISO 639 code of the language of each text; None where it tells none."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    rows = [text[:MOST_CHARACTERS] for text in texts]
    codes: list[str | None] = []
    for start in range(0, len(rows), ROWS_TOGETHER):
        codes += _judge_each(identifier, rows[start : start + ROWS_TOGETHER])
    return codes


def _judge(identifier: Any, rows: list[str]) -> list[str]:
    """The code of each row's language; rows that tell nothing, even together, are left out."""
    codes = _judge_each(identifier, rows)
    return [code for code in codes if code is not None]


def _judge_each(identifier: Any, rows: list[str]) -> list[str | None]:
    """The code of each row's language; None where it tells nothing, even with the others.

    A row that is too short to tell by itself has the language of the rows around it.
    """
    together = _language_of(identifier, "\n".join(rows))
    return [_language_of(identifier, row) or together for row in rows]


def _language_of(identifier: Any, text: str) -> str | None:
    """The code of a text's language; None where it is not clear."""
    result = identifier.classify(text)
    code = str(result[0])
    if code in ENGLISH:
        return ENGLISH[0]
    if code == NO_LANGUAGE or result[1] < LEAST_CONFIDENCE:
        return None
    return code


def name(code: str) -> str:
    """The name of a language in English, by its ISO 639 code."""
    return NAMES.get(code, f"a language with the code {code}")


def encoder_note(languages: Languages) -> str | None:
    """What to say where the sentences are in another language than the embedded encoder reads.

    None where there is nothing to say.
    """
    if not languages.is_foreign:
        return None
    return (
        f"The sentences read as {languages.describe()}; the embedded encoder reads English."
        f" Train with a multilingual one, for example --set model_name={MULTILINGUAL_ENCODER}"
    )
