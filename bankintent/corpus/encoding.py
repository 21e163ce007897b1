"""The encodings of text files: which one a file is read in, and what is said where that fails."""

import codecs
import contextlib
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from bankintent.corpus import limits
from bankintent.errors import DataError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before UTF-16: the mark of UTF-32 begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Bytes at the start of a file, and the encoding that drops them and reads the rest."""

CANDIDATES = (
    "cp1252",
    "cp1250",
    "cp1254",
    "cp1257",
    "cp1251",
    "koi8_r",
    "cp1253",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
    "cp1255",
    "cp1256",
    "cp874",
    "cp850",
    "mac_roman",
)
"""Encodings that a file may look like: of those that fit as well, the first one is named."""

SLACK = 0.1
"""How much messier than the best candidate an earlier one may be."""

SLACK_OF_FIRST = 0.3
"""The same for the first candidate: few exports are in another one, and the detector takes many
accents or quotes for a mess."""

TOO_MESSY = 0.5
"""A file that is this messy in every candidate is none of them."""

HEAD = 4096
"""Bytes of a file that are searched for UTF-16 without a byte order mark."""

SAMPLE = 1 << 16
"""Most bytes that are shown to the detector."""

BLOCK = 1 << 20
"""Most bytes of a line that are looked at together."""

CELL_END = re.compile(rb'[\r\n\t",;]+')
"""Bytes that stand for themselves in every one of CANDIDATES."""

INNER_SIGNS = "\u2019\u2018'\u00b4\u2013\u2014-\u00b7"
"""Signs beyond ASCII that do stand between two letters: apostrophes, dashes."""


class EncodingFault(DataError):
    """A text file that cannot be read in the encoding that was expected."""

    def __init__(self, found: str, next_step: str, looks_like: str | None) -> None:
        super().__init__(found, next_step)
        self.looks_like = looks_like
        """A value of the key `encoding`; None where nothing fits."""


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unzipped where its name ends in .gz; DataError where that is a bomb."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, limits.open_gzip(path))
    return path.open("rb")


def open_text(path: Path, encoding: str) -> TextIO:
    """The file's text; its line ends are left as they are."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="")


@contextlib.contextmanager
def readable(path: Path, encoding: str = "utf-8") -> Iterator[None]:
    """Turn the errors of reading a file as text into a DataError that names it."""
    try:
        yield
    except UnicodeError:
        # The text is decoded in blocks, ahead of the line that the caller is at.
        raise encoding_fault(path, encoding) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason})") from None


def find_encoding(path: Path, configured: str | None) -> str:
    """The encoding in which a file is to be read: `utf-8-sig` where it shows no other.

    A byte order mark comes first, because it leaves no doubt; so does UTF-8 with letters beyond
    ASCII, which no text in another encoding happens to be. Raises EncodingFault where the file is
    UTF-16 without its mark.
    """
    with open_bytes(path) as file:
        head = file.read(HEAD)

    for mark, encoding in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding

    unmarked = _unmarked_utf16(head)
    if configured is None and unmarked:
        raise EncodingFault(
            f"{path} is not UTF-8 text; it looks like {unmarked} without a byte order mark",
            f"Set encoding: {unmarked} (--set encoding={unmarked}), or save the file as UTF-8",
            unmarked,
        )
    if configured is None or _is_utf8(path, beyond_ascii=True):
        return "utf-8-sig"
    if configured == "utf-16" and unmarked:
        return unmarked

    _refuse_control_characters(path, configured)
    return "utf-8-sig" if configured == "utf-8" else configured


def name_encoding(encoding: str) -> str:
    """The name of an encoding for people and for the key `encoding`."""
    return encoding.removesuffix("-sig")


def _unmarked_utf16(head: bytes) -> str | None:
    """The kind of UTF-16 that a file without a byte order mark is; None where it is another.

    Every second byte of Western text is zero there; in other encodings hardly any is.
    """
    pairs = len(head) // 2
    zeros = {"utf-16-be": head[0::2].count(0), "utf-16-le": head[1::2].count(0)}
    for encoding, count in zeros.items():
        if pairs and count > pairs / 2:
            return encoding
    return None


def encoding_in_words(encoding: str) -> str:
    """The name of an encoding in a sentence: UTF-8, cp1252."""
    name = name_encoding(encoding)
    return name.upper() if name.startswith("utf") else name


def _is_utf8(path: Path, beyond_ascii: bool = False) -> bool:
    """Whether the whole file is UTF-8; where `beyond_ascii`, and not ASCII alone."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_ascii = True

    with open_bytes(path) as file:
        try:
            while block := file.read(BLOCK):
                is_ascii = is_ascii and block.isascii()
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return not (beyond_ascii and is_ascii)


def _refuse_control_characters(path: Path, configured: str) -> None:
    """ISO 8859 has control characters where Windows has quotes and the euro sign."""
    if not configured.startswith("iso8859"):
        return

    with open_bytes(path) as file:
        for number, line in enumerate(_lines(file), 1):
            if re.search(rb"[\x80-\x9f]", line):
                found = f"{path} line {number} holds control characters when read as {configured}"
                raise _fault(path, found)


def encoding_fault(path: Path, encoding: str) -> EncodingFault:
    """The error of a file that is not text in `encoding`; names its line and what it looks like."""
    line = _first_fault(path, encoding)
    found = f"{path} is not {encoding_in_words(encoding)} text (line {line})"

    if encoding.startswith("utf-8") and _is_mostly_utf8(path):
        return EncodingFault(
            found, "The other lines are UTF-8: correct that line and those like it", None
        )
    return _fault(path, found)


def _fault(path: Path, found: str) -> EncodingFault:
    if _is_utf8(path):
        return EncodingFault(f"{found}; it is UTF-8", "Leave the key encoding out", "utf-8")

    looks_like = _guess(path)
    if looks_like is None:
        next_step = "Save it as UTF-8, or name its encoding: --set encoding=NAME"
        return EncodingFault(found, next_step, None)
    return EncodingFault(
        f"{found}; it looks like {looks_like}",
        f"Set encoding: {looks_like} (--set encoding={looks_like}), or save the file as UTF-8",
        looks_like,
    )


def _first_fault(path: Path, encoding: str) -> int:
    """The line, as an editor counts it, with the first bytes that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    ends_in_return = False

    with open_bytes(path) as file:
        # One byte after the other in the block that fails, so that all text before it counts.
        while block := file.read(HEAD):
            state = decoder.getstate()
            try:
                text = decoder.decode(block)
            except UnicodeError:
                decoder.setstate(state)
                text = _decodable(decoder, block)
                return lines + _line_ends(text, ends_in_return)

            lines += _line_ends(text, ends_in_return)
            ends_in_return = text.endswith("\r") or (ends_in_return and not text)
    return lines


def _decodable(decoder: codecs.IncrementalDecoder, block: bytes) -> str:
    """The text before the first fault of a block."""
    text = ""
    for index in range(len(block)):
        try:
            text += decoder.decode(block[index : index + 1])
        except UnicodeError:
            break
    return text


def _line_ends(text: str, after_return: bool) -> int:
    """Line ends in a text; a line feed right after a carriage return is one with it."""
    count = text.count("\n") + text.count("\r") - text.count("\r\n")
    if after_return and text.startswith("\n"):
        count -= 1
    return count


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; a very long one in pieces."""
    while line := file.readline(BLOCK):
        yield line


def _is_mostly_utf8(path: Path) -> bool:
    """Whether more of the lines with bytes beyond ASCII are UTF-8 than are not."""
    good = 0
    bad = 0
    with open_bytes(path) as file:
        for line in _lines(file):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError:
                bad += 1
    return good > bad


def _guess(path: Path) -> str | None:
    """The one of CANDIDATES that a file looks like most."""
    # It is slow to import, and needed in the case of an error alone.
    import charset_normalizer

    matches = charset_normalizer.from_bytes(
        _sample_cells(path),
        cp_isolation=list(CANDIDATES),
        threshold=1.0,
        preemptive_behaviour=False,
        enable_fallback=False,
    )
    messiness: dict[str, float] = {}
    for match in matches:
        value = match.chaos + _share_of_odd_characters(str(match))
        # Encodings in which the text is the same are listed with the first of them.
        for encoding in (match.encoding, *match.could_be_from_charset):
            messiness[encoding] = value
    return _choose(messiness)


def _choose(messiness: dict[str, float]) -> str | None:
    best = min(messiness.values(), default=TOO_MESSY)
    if best >= TOO_MESSY:
        return None

    for encoding in CANDIDATES:
        slack = SLACK_OF_FIRST if encoding == CANDIDATES[0] else SLACK
        if messiness.get(encoding, TOO_MESSY) <= best + slack:
            return encoding
    return None


def _sample_cells(path: Path) -> bytes:
    """The cells that have bytes beyond ASCII, each once; they alone tell encodings apart."""
    sample: dict[bytes, None] = {}
    size = 0
    with open_bytes(path) as file:
        for cell in _split_cells(_lines(file)):
            if cell.isascii() or cell in sample:
                continue
            if size + len(cell) > SAMPLE:
                break
            sample[cell] = None
            size += len(cell)
    return b"\n".join(sample)


def _split_cells(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield from CELL_END.split(line)


def _share_of_odd_characters(text: str) -> float:
    """Share of the letters beyond ASCII that hardly stand where they do.

    The detector passes over signs and capitals in the middle of a word, which are what the letters
    of another encoding become.
    """
    positions = [index for index, character in enumerate(text) if not character.isascii()]
    odd = [index for index in positions if _is_odd(text, index)]
    return len(odd) / max(len(positions), 1)


def _is_odd(text: str, index: int) -> bool:
    character = text[index]
    if "\x80" <= character <= "\x9f":
        return True
    if character in INNER_SIGNS or character.islower():
        return False

    before = text[index - 1 : index]
    after = text[index + 1 : index + 2]
    return before.islower() and after.islower()
