"""The report of a comparison as Markdown, JSON, one HTML file and PNG plots; the same figures give the same bytes."""

import base64
import shutil
from html import escape
from pathlib import Path
from typing import Any

from bankintent import console, files, tracking
from bankintent.errors import OutputError
from bankintent.measures import plots
from bankintent.studies.analysis import ALPHA, Figures, percent, signed
from bankintent.studies.plan import size_name

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }}
td + td {{ font-variant-numeric: tabular-nums; }}
img {{ max-width: 100%; height: auto; }}
code {{ background: #f4f4f4; padding: 0 .2rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
{body}</body>
</html>
"""

Table = tuple[list[str], list[list[str]]]


def write(folder: Path, result: Figures) -> Path:
    """Write the report folder beside its place and rename it; returns it."""
    files.recover(folder)
    if folder.exists() and not (folder / "report.json").is_file():
        raise OutputError(
            f"{folder} exists and is no report", "Move it away, or name another output_dir"
        )
    with files.exclusive(folder) as staging:
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir()
        pictures = draw(result, staging)
        text = markdown(result, pictures)
        files.write_text(staging / "report.md", text)
        files.write_text(staging / "report.json", files.json_text(result))
        files.write_text(staging / "report.html", html(text, staging, result["study"]))
        files.publish(staging, folder)
    return folder


def show(result: Figures, folder: Path) -> None:
    """Print the accuracies, the verdicts of the largest size, and where the rest is."""
    header, body = quality(result)
    body = [row[:-1] for row in body]  # both would not fit a line of eighty characters
    console.print_table(
        f"{result['study']}: {result['rows']:,} {result['split']} rows", header[:-1], body
    )
    for pair in _main_pairs(result):
        console.say(pair["verdict"])
    console.say(
        f"Report: {console.show_path(folder)} (report.html opens by itself; report.md, report.json, plots)"
    )


def draw(result: Figures, folder: Path) -> dict[str, str]:
    """Write the plots; returns file name -> what it shows."""
    cells, split = result["cells"], result["split"]
    pictures = {"accuracy.png": "Accuracy against trainable parameters"}
    points = [_point(cell, cell["trainable_parameters"]) for cell in _main_cells(result)]
    title = f"{split} accuracy, mean and 95 % interval over seeds"
    largest = cells[0]["size"]
    of = "" if largest == "all" else f", {size_name(largest)}"
    plots.accuracy_by_parameters(points, folder / "accuracy.png", title + of)
    if len({cell["size"] for cell in cells}) > 1:
        pictures["learning-curves.png"] = "Accuracy against the number of training sentences"
        sizes = list(dict.fromkeys(str(cell["size"]) for cell in reversed(cells)))
        curve = [_point(cell, sizes.index(str(cell["size"]))) for cell in cells]
        plots.learning_curves(curve, sizes, folder / "learning-curves.png", title)
    for pair in result["intents"]:
        if any(row["difference"] for row in pair["intents"]):
            name = f"intents-{pair['a']}-{pair['b']}.png"
            pictures[name] = f"Intents in which {pair['a']} and {pair['b']} differ most"
            plots.intent_differences(pair["intents"], pair["a"], pair["b"], folder / name)
    return pictures


def _point(cell: Figures, x: float) -> plots.Point:
    return plots.Point(cell["recipe"], x, cell["accuracy"]["mean"], cell["accuracy"]["interval"])


def _main_cells(result: Figures) -> list[Figures]:
    """The cells of the largest size."""
    return [cell for cell in result["cells"] if cell["size"] == result["cells"][0]["size"]]


def _main_pairs(result: Figures) -> list[Figures]:
    return [pair for pair in result["pairs"] if pair["size"] == result["cells"][0]["size"]]


def markdown(result: Figures, pictures: dict[str, str]) -> str:
    """report.md."""
    lines = [f"# {result['study']}", "", *_introduction(result), ""]
    lines += ["## Verdicts", "", *_verdicts(result)]
    lines += ["## Accuracy", "", *console.markdown_table(*quality(result)), ""]
    lines += ["## Cost", "", *console.markdown_table(*cost(result)), ""]
    if result["pairs"]:
        lines += ["## Paired tests", "", *console.markdown_table(*tests(result)), ""]
    for name, caption in pictures.items():
        lines += [f"![{caption}]({name})", ""]
    lines += ["## Recipes", "", *_recipes(result), ""]
    lines += ["## How to read this", "", *_notes(result)]
    return "\n".join(lines) + "\n"


def html(text: str, folder: Path, title: str) -> str:
    """The Markdown as one page that needs nothing else: pictures inside, no scripts, nothing fetched."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def picture(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        data = base64.b64encode((folder / token.attrs["src"]).read_bytes()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(token.content)}">'

    parser.add_render_rule("image", lambda *args: picture(*args))
    return PAGE.format(title=escape(title), body=parser.render(text))


def quality(result: Figures) -> Table:
    """Accuracy and macro-F1 of each cell."""
    body = [
        [
            c["recipe"],
            _size(c),
            str(len(c["seeds"])),
            _interval(c["accuracy"]),
            _interval(c["macro_f1"]),
        ]
        for c in result["cells"]
    ]
    return ["recipe", "training data", "seeds", "accuracy, % (95 %)", "macro-F1, % (95 %)"], body


def cost(result: Figures) -> Table:
    """What each cell costs to train, to ship and to run."""
    body = [
        [
            cell["recipe"],
            _size(cell),
            f"{cell['trainable_parameters']:,}",
            percent(cell["share"]),
            _number(cell["train_seconds"]),
            _number(cell["run_seconds"]),
            f"{cell['peak_memory_bytes'] / 1e9:.2f}",
            ", ".join(f"{part} {size / 1e6:.1f}" for part, size in sorted(cell["bytes"].items())),
            _number(cell["single_ms"]),
            _number(cell["batched_per_second"]),
        ]
        for cell in result["cells"]
    ]
    header = [
        "recipe",
        "training data",
        "trainable",
        "share",
        "training s",
        "run s",
        "peak GB",
        "ships MB",
    ]
    return [*header, "one sentence ms", "sentences/s"], body


def tests(result: Figures) -> Table:
    """The paired tests."""
    body = []
    for pair in result["pairs"]:
        low, high = (signed(end) for end in pair["interval"])
        vote = pair["mcnemar"]["plurality"]
        body.append(
            [
                f"{pair['a']} - {pair['b']}",
                size_name(pair["size"]),
                f"{signed(pair['difference'])} ({low} to {high})",
                f"{pair['mcnemar']['significant']} of {len(pair['seeds'])}",
                f"{vote['only_a']} : {vote['only_b']}",
                _p(vote["p"]),
            ]
        )
    header = ["pair", "training data", "difference, points (95 %)", f"seeds with p < {ALPHA}"]
    return [*header, "rows that one alone has right, by vote", "p, by vote"], body


def _introduction(result: Figures) -> list[str]:
    data, runs, made = result["data"], result["runs"], result["made"]
    lines = [
        f"{result['rows']:,} {result['split']} rows of {data['name']} ({data['intents']} intents), data"
        f" `{data['data_hash'][:12]}`. {runs['finished']} of {runs['planned']} runs, the first finished"
        f" {made['from']}, the last {made['to']} UTC, on {' / '.join(made['hardware'])}, training in"
        f" {' / '.join(made['precision'])}.",
    ]
    if runs["missing"]:
        lines += ["", f"**Not finished, and in no figure here:** {_by_cell(runs['missing'])}."]
    if result["split"] == "val":
        lines += [
            "",
            "These are validation rows, which recipes may be chosen on: no estimate for new sentences.",
        ]
    return lines


def _by_cell(labels: list[str]) -> str:
    """Runs by what is trained: `lora, 5 per intent, seeds 4, 5; ...`."""
    seeds: dict[str, list[str]] = {}
    for cell, seed in (label.rsplit(", seed ", 1) for label in labels):
        seeds.setdefault(cell, []).append(seed)
    return "; ".join(
        f"{cell}, seed{'s' * (len(found) > 1)} {', '.join(found)}" for cell, found in seeds.items()
    )


def _verdicts(result: Figures) -> list[str]:
    lines: list[str] = []
    for size in dict.fromkeys(pair["size"] for pair in result["pairs"]):
        lines += [f"With {size_name(size)}:" if size != "all" else "With all training data:", ""]
        lines += [f"- {pair['verdict']}" for pair in result["pairs"] if pair["size"] == size]
        lines += [""]
    return lines or ["One recipe: there is nothing to compare.", ""]


def _recipes(result: Figures) -> list[str]:
    """What was swept, and every setting of every recipe."""
    recipes = result["recipes"]
    lines = [f"- {r['recipe']}: {r['chosen']['words']}." for r in recipes if r["chosen"]]
    settings = [tracking.flatten({"regime": r["regime"], **r["settings"]}) for r in recipes]
    keys = dict.fromkeys(key for values in settings for key in values)
    body = [
        [key, *("" if (v := values.get(key)) is None else str(v) for values in settings)]
        for key in keys
    ]
    lines += [""] if lines else []
    return lines + console.markdown_table(["setting", *(r["recipe"] for r in recipes)], body)


def _notes(result: Figures) -> list[str]:
    versions = [
        ", ".join(f"{name} {version}" for name, version in made.items())
        for made in result["made"]["versions"]
    ]
    unlabelled = [r["recipe"] for r in result["recipes"] if r["settings"].get("pseudo_labels")]
    return [
        "- Accuracy and macro-F1: mean over seeds; the 95 % interval is Student's t over seeds, cut to 0 to 100 %. It"
        " says how much another seed may change the mean, not another test set.",
        "- Differences: 95 % percentile interval of a paired bootstrap that resamples rows and seeds together"
        f" ({result['bootstrap']['resamples']:,} resamples, seed {result['bootstrap']['seed']}). It errs on the wide"
        " side from three seeds on; two may be too few.",
        "- Tests: McNemar's exact two-sided test for each seed, and once on the votes of all seeds (the label that most"
        " seeds predict); p-values are not corrected for the number of pairs.",
        "- Training time: from loading the encoder to the last epoch's validation. Run time: to the published bundle,"
        " its checks included. Medians over the seeds whose run was not interrupted.",
        "- Peak memory: the largest over seeds, of the GPU where there is one, else of the process.",
        "- Ships: merged is the plain model that serves by itself; adapter needs its base model beside it.",
        "- One sentence, sentences/s (batches of 32): the merged model in float32 on the machine of the run, medians.",
        "- Training data: that many sentences of each intent, or all it has where it has fewer, drawn with the run's"
        " seed; validation and test are whole.",
        *(
            f"- {name}: learns from sentences without labels too: those that its size leaves out, and the data's"
            " `unlabelled`."
            for name in unlabelled
        ),
        f"- Versions: {' / '.join(versions)}.",
    ]


def _size(cell: Figures) -> str:
    return f"{'all' if cell['size'] == 'all' else size_name(cell['size'])} ({cell['train_rows']:,})"


def _interval(figure: Figures) -> str:
    interval = figure["interval"]
    mean = f"{100 * figure['mean']:.2f}"
    return (
        f"{mean} ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})"
        if interval
        else f"{mean} (one seed)"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
