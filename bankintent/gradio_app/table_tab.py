"""The tab for a table: a file, its columns, the same rows with predictions, and a summary."""

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from bankintent.config import FrontendConfig, LabelledTableKeys
from bankintent.corpus.tables import ENDINGS
from bankintent.gradio_app import upload
from bankintent.gradio_app.client import Client, Trouble
from bankintent.gradio_app.inspection import FIRST_COLUMNS, Inspection, find_sheets, inspect
from bankintent.gradio_app.render import LIVE, problem, render
from bankintent.gradio_app.summary import TOP_LABELS, describe_refusal, sum_up
from bankintent.gradio_app.upload import RowAnswer, UnknownEncoding, UploadedTable
from bankintent.serving.page.wording import percent

PREVIEW_ROWS = 10
"""Rows of a scored file that the page shows; all of them are in the download."""

PREVIEW_CHARS = 120
"""Most characters of a message in these rows."""

HIDDEN = gr.update(visible=False, value=None)
"""The update of a component that a file does not need."""

NO_LABELS = ""
"""The value of the choice that the table has no column of intents."""

ENCODINGS = {
    "cp1252": "Western Europe, Windows",
    "cp1250": "Central Europe, Windows",
    "cp1254": "Turkish, Windows",
    "cp1257": "Baltic, Windows",
    "cp1251": "Cyrillic, Windows",
    "koi8-r": "Cyrillic, KOI8-R",
    "cp1253": "Greek, Windows",
    "cp1255": "Hebrew, Windows",
    "cp1256": "Arabic, Windows",
    "cp874": "Thai, Windows",
    "cp932": "Japanese, Windows",
    "euc_jp": "Japanese, EUC",
    "gb18030": "Chinese, simplified",
    "big5": "Chinese, traditional",
    "cp949": "Korean, Windows",
    "cp850": "Western Europe, DOS",
    "mac-roman": "Western Europe, Mac",
    "utf-16-le": "UTF-16, little-endian",
    "utf-16-be": "UTF-16, big-endian",
}
"""Encodings to choose from for a file that does not say its own: Python's names, and words."""


def add_table_tab(client: Client, settings: FrontendConfig, scratch: Path) -> None:
    """A file to upload, its columns to choose, and the same rows with predictions to download."""
    source = gr.File(
        label="A table: CSV, Excel, JSON, Parquet",
        file_types=[*ENDINGS, ".gz"],
        elem_id="upload",
    )
    with gr.Row():
        encoding = add_picker("Encoding of the file", "encoding")
        sheet = add_picker("Sheet", "sheet")
        text_column = add_picker("Column of messages", "text-column")
        label_column = add_picker("Column of intents", "label-column")
    button = gr.Button("Predict", variant="primary", elem_id="predict")
    answer = gr.HTML(elem_id="table-answer", elem_classes="answer", js_on_load=LIVE)
    download = gr.File(label="With predictions", visible=False, elem_id="download")
    preview = gr.HTML(elem_id="preview", elem_classes="answer")

    def look(path: str | None) -> list[Any]:
        return look_at(path, LabelledTableKeys(), settings.max_rows)

    def look_again(path: str | None, encoding: str | None, sheet: str | None) -> list[Any]:
        return look_at(path, make_keys(encoding, sheet), settings.max_rows)

    def score(
        path: str | None,
        encoding: str | None,
        sheet: str | None,
        text_column: str | None,
        label_column: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio finds it by this default)
    ) -> list[Any]:
        keys = make_keys(encoding, sheet, text_column, label_column)
        return score_file(client, path, keys, settings.max_rows, scratch, progress)

    chosen = [encoding, sheet, text_column, label_column]
    results = [answer, download, preview]
    gr.on([source.upload, source.clear], look, source, chosen + results, api_visibility="private")
    gr.on(
        [encoding.input, sheet.input],
        look_again,
        [source, encoding, sheet],
        chosen + results,
        api_visibility="private",
    )
    # A few long files must leave the API free for single messages.
    button.click(score, [source, *chosen], results, api_visibility="private", concurrency_limit=2)


def add_picker(label: str, name: str) -> gr.Dropdown:
    """A list to choose from, hidden until a file needs it."""
    # So wide that on a phone each has a line of its own: an input cannot wrap a long name.
    return gr.Dropdown(label=label, visible=False, min_width=260, elem_id=name)


def make_keys(
    encoding: str | None,
    sheet: str | None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> LabelledTableKeys:
    """What was chosen, for the reader; without a column of intents nothing is compared."""
    return LabelledTableKeys(
        encoding=encoding,
        sheet=sheet,
        text_column=text_column,
        label_column=None if label_column == NO_LABELS else label_column,
    )


def look_at(path: str | None, keys: LabelledTableKeys, max_rows: int) -> list[Any]:
    """The four pickers and the three results for a file that was chosen, or for none."""
    if path is None:
        return [HIDDEN, HIDDEN, HIDDEN, HIDDEN, "", HIDDEN, ""]

    source = Path(path)
    sheets: list[str] = []
    try:
        sheets = find_sheets(source)
        table = inspect(source, max_rows, keys)
    except Trouble as trouble:
        # What was chosen stays, so that another encoding or sheet can be tried.
        return [
            show_encodings(keys.encoding, trouble),
            show_sheets(sheets, keys.sheet),
            HIDDEN,
            HIDDEN,
            problem(str(trouble)),
            HIDDEN,
            "",
        ]

    return [
        show_encodings(keys.encoding),
        show_sheets(sheets, keys.sheet),
        gr.Dropdown(table.columns, value=table.text_column, visible=True),
        show_labels(table.columns, table.label_column),
        render("ready.html", table=table),
        HIDDEN,
        render_first_rows(table),
    ]


def show_encodings(chosen: str | None, trouble: Trouble | None = None) -> Any:
    """The picker of encodings, where one was chosen or is to be; what the file looks like first."""
    choices = [(f"{words} ({name})", name) for name, words in ENCODINGS.items()]
    if isinstance(trouble, UnknownEncoding):
        looks_like = trouble.looks_like
        # A stable sort: the others keep their order.
        choices.sort(key=lambda choice: choice[1] != looks_like)
    elif chosen is None:
        return HIDDEN
    return gr.Dropdown(choices, value=chosen, visible=True)


def show_sheets(sheets: list[str], chosen: str | None) -> Any:
    """The picker of sheets, where there is more than one."""
    if len(sheets) < 2:
        return HIDDEN
    return gr.Dropdown(sheets, value=chosen or sheets[0], visible=True)


def show_labels(columns: list[str], suggested: str | None) -> gr.Dropdown:
    """The picker of the column of intents, which a table need not have."""
    choices = [("none", NO_LABELS), *((name, name) for name in columns)]
    return gr.Dropdown(choices, value=suggested or NO_LABELS, visible=True)


def render_first_rows(table: Inspection) -> str:
    """The first rows of a table that was chosen, as HTML."""
    columns = table.columns[:FIRST_COLUMNS]
    return render("rows.html", title="First rows", columns=columns, rows=table.first_rows)


def score_file(
    client: Client,
    path: str | None,
    keys: LabelledTableKeys,
    max_rows: int,
    scratch: Path,
    progress: gr.Progress,
) -> list[Any]:
    """The summary, the file to download and the first scored rows, or the reason why not."""
    if path is None:
        return [problem("Choose a file first."), HIDDEN, ""]

    def report(share: float) -> None:
        progress(share, desc="Predicting")

    try:
        table = upload.read_upload(Path(path), max_rows, keys)
        answers = upload.score_upload(client, table, report)
        model_labels = client.info().get("labels", [])
    except Trouble as trouble:
        return [problem(str(trouble)), HIDDEN, ""]

    # A folder for each call: two people may upload files of the same name.
    folder = Path(tempfile.mkdtemp(dir=scratch))
    target = upload.write_scored(table, answers, folder)
    summary = sum_up(answers, table.labels, model_labels)

    return [
        render("summary.html", summary=summary, top_labels=TOP_LABELS),
        gr.File(str(target), visible=True),
        render_scored_rows(table, answers),
    ]


def render_scored_rows(table: UploadedTable, answers: list[RowAnswer]) -> str:
    """The first rows of a scored table as HTML: messages, predictions, and labels if it has any."""
    first = answers[:PREVIEW_ROWS]
    columns = {
        "Message": [text[:PREVIEW_CHARS] for text in table.texts[: len(first)]],
        "Predicted intent": [answer.answer or "" for answer in first],
        "Score": [_show_score(answer) for answer in first],
    }
    if any(answer.is_refused for answer in first):
        columns["Refused"] = [describe_refusal(answer) for answer in first]
    if table.labels is not None:
        columns["Intent in the file"] = table.labels[: len(first)]
    if any(answer.note for answer in first):
        columns["Note"] = [answer.note for answer in first]

    title = f"First {len(first)} rows" if len(first) < len(answers) else "Rows"
    rows = zip(*columns.values(), strict=True)
    return render("rows.html", title=title, columns=list(columns), rows=list(rows), headline=True)


def _show_score(answer: RowAnswer) -> str:
    return "" if answer.score is None else percent(answer.score)
