"""`python -m bankintent init`: what is chosen for a source and why, what it costs, and files that run as they are."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY, Run, write_csv, write_yaml
from tiny_models import rows, tiny_tokenizer

import etl
import multiregime
from bankintent import __main__ as verbs
from bankintent import files
from bankintent.config import ContrastiveSection, DataConfig, Regime, TrainConfig
from bankintent.configfile import load
from bankintent.corpus import cleaning, division, sources
from bankintent.errors import ModelError
from bankintent.first_steps import choice, editor_line, init, machine, proposal, recipes
from bankintent.first_steps.estimate import Estimate, Measured, Workload, about, estimate
from bankintent.labels import LabelSchema

MEASURED = Measured(
    load_seconds=1.0,
    forward_seconds=0.01,
    step_seconds={"head-only": 0.001, "lora": 0.02, "full-ft": 0.03},
    memory={"head-only": 600_000_000, "lora": 900_000_000, "full-ft": 1_200_000_000},
    is_least_memory=False,
    free_memory=8_000_000_000,
    precision="fp32",
    hardware="CPU, 2 threads",
)

RECIPE = TrainConfig(
    model_name="tiny", regime="lora", output_dir=Path("out"), epochs=4, head_init="random"
)

GERMAN = [
    ("wo ist meine karte geblieben und wann kommt sie endlich an", "karte"),
    ("ich habe gestern meine karte verloren und brauche eine neue", "karte"),
    ("die neue karte ist noch immer nicht bei mir angekommen", "karte"),
    ("bitte sperren sie sofort meine gestohlene karte für mich", "karte"),
    ("wie hoch ist heute der kurs zwischen euro und pfund", "kurs"),
    ("warum wurde mir ein schlechter wechselkurs berechnet", "kurs"),
    ("ich möchte wissen, welcher kurs am wochenende gilt", "kurs"),
    ("der wechselkurs auf meiner abrechnung stimmt leider nicht", "kurs"),
]


@pytest.fixture
def tiny_recipes(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recommended recipes, with a tiny model and one epoch."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name in (*recipes.REGIMES, "small"):
        lines = []
        recipe = REPOSITORY / "configs" / "recommended" / f"{name}.yaml"
        for line in recipe.read_text(encoding="utf-8").splitlines():
            changed = {
                "model_name": f"model_name: {tiny_bert}",
                "max_length": "max_length: 32",
                "epochs": "epochs: 1",
            }
            lines.append(changed.get(line.partition(":")[0], line))
        lines += ["export: {onnx: false}", "tracking: {enabled: false}"]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(recipes, "FOLDER", folder)
    return folder


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe has measured MEASURED on a machine that is idle."""
    monkeypatch.setattr(proposal, "measure", lambda *_: MEASURED)
    monkeypatch.setattr(machine, "load", lambda: 0.0)


def written(name: str = "mine") -> tuple[DataConfig, TrainConfig]:
    folder = Path("configs") / name
    return load(DataConfig, folder / "data.yaml"), load(TrainConfig, folder / "train.yaml")


def comments(path: Path) -> str:
    """The comments of a file, as one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    words = " ".join(line.lstrip("# ") for line in lines if line.startswith("#")).split()
    return " ".join(words)


def test_the_probe_of_a_tiny_model_gives_figures_of_each_regime(tiny_recipes: Path) -> None:
    from bankintent.first_steps import probe

    texts = [text for text, _ in rows()]
    recipe = recipes.load_all(is_cross=False)["lora"]
    found = probe.measure(recipe, texts, LabelSchema(("a", "b", "c")), threads=1)

    assert found.forward_seconds > 0
    assert set(found.step_seconds) == set(recipes.REGIMES)
    assert min(found.step_seconds.values()) > 0
    assert found.memory["head-only"] <= found.memory["lora"] <= found.memory["full-ft"]


@pytest.mark.parametrize(
    ("most_tokens", "sizes", "are_cut"), [(None, [4, 4, 4], False), (24, [2, 4, 2], True)]
)
def test_batches_of_the_probe_have_sentences_of_like_length(
    most_tokens: int | None, sizes: list[int], are_cut: bool
) -> None:
    from bankintent.first_steps.probe import Sample

    # Of 3 to 14 tokens, with the first and the last one.
    texts = [" ".join(["card"] * words) for words in range(1, 13)]
    sample = Sample.draw(tiny_tokenizer(model_max_length=32), texts[::-1], batch_size=4)
    batches, were_cut = sample.batches(most_tokens)

    assert [len(batch["input_ids"]) for batch in batches] == sizes
    # The middle, the short, the long ones.
    assert [batch["input_ids"].shape[1] for batch in batches] == [10, 6, 14]
    assert were_cut is are_cut


@pytest.mark.usefixtures("tiny_recipes")
@pytest.mark.parametrize("split", ["stable", "cross"])
def test_the_written_files_run_as_they_are(split: str, run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    result = run(verbs.init, "mine.csv", "--set", f"split={split}")
    assert result.code == 0, result.err
    assert "python -m etl --config configs/mine/data.yaml" in result.out
    assert "python -m multiregime --config configs/mine/train.yaml" in result.out

    etl_result = run(etl.main, "--config", "configs/mine/data.yaml")
    assert etl_result.code == 0, etl_result.err
    training = run(multiregime.main, "--config", "configs/mine/train.yaml")
    assert training.code == 0, training.err
    assert Path("artifacts/models/mine/manifest.json").is_file()


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_what_was_found_is_written_down(run: Run) -> None:
    pairs = [*rows(), ("", "top_up")]
    with Path("mine.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([("Message", "Topic"), *pairs])

    result = run(
        verbs.init, "mine.csv", "--set", "text_column=Message", "--set", "label_column=Topic"
    )
    assert result.code == 0, result.err
    data, _ = written()
    assert (data.text_column, data.label_column) == ("Message", "Topic")
    assert data.delimiter == ";"
    assert data.output_dir == Path("data/mine")
    assert data.split is not None

    said = comments(Path("configs/mine/data.yaml"))
    for words in ("61 rows, CSV", "60 of 3 intents, 20 of each", "1 x empty text", "English"):
        assert words in said
        assert words in " ".join(result.out.split())


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_columns_are_named_even_where_they_were_found(run: Run) -> None:
    write_csv(Path("mine.csv"), rows(), header="utterance,category")
    assert run(verbs.init, "mine.csv").code == 0
    text = Path("configs/mine/data.yaml").read_text(encoding="utf-8")
    assert "\ntext_column: utterance\nlabel_column: category\n" in text
    assert "delimiter:" not in text


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_the_files_name_their_schemas_where_these_are_below_the_working_directory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(Path("mine.csv"), rows())
    assert run(verbs.init, "mine.csv", "--name", "without").code == 0
    assert "$schema" not in Path("configs/without/train.yaml").read_text(encoding="utf-8")

    shutil.copytree(REPOSITORY / "configs" / "schemas", "configs/schemas")
    monkeypatch.setattr(editor_line, "SCHEMAS", Path.cwd() / "configs" / "schemas")
    assert run(verbs.init, "mine.csv").code == 0
    for kind in ("data", "train"):
        path = Path(f"configs/mine/{kind}.yaml")
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first == f"{editor_line.PREFIX}../schemas/{kind}.schema.json"
        assert (path.parent / first.removeprefix(editor_line.PREFIX)).is_file()
    assert written()[1].output_dir == Path("artifacts/models/mine")


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_the_recipe_has_its_own_values_and_the_users_places(run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    assert run(verbs.init, "mine.csv", "--name", "other").code == 0
    _, train = written("other")
    assert train.data_dir == Path("data/other")
    assert train.output_dir == Path("artifacts/models/other")

    recipe = load(TrainConfig, recipes.path_of(train.regime))
    places = {"data_dir", "output_dir"}
    assert train.model_dump(exclude=places) == recipe.model_dump(exclude=places)


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_the_split_is_the_one_that_etl_would_choose(run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    assert run(verbs.init, "mine.csv").code == 0
    data, _ = written()

    given = DataConfig(dataset_name="mine.csv")
    clean = cleaning.clean_all(sources.read_all(given), given)
    sizes = {split: len(part) for split, part in clean.dataset.items()}
    assert data.split == division.choose_division(sizes, given).name


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_an_official_test_split_is_kept(run: Run) -> None:
    Path("mine").mkdir()
    write_csv(Path("mine/train.csv"), rows())
    write_csv(Path("mine/test.csv"), [(f"please, {text}", label) for text, label in rows(4)])
    assert run(verbs.init, "mine").code == 0
    data, _ = written()
    assert data.split == "official"
    assert "a test split of its own" in comments(Path("configs/mine/data.yaml"))


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_cross_validation_is_counted_and_its_keys_are_written(run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    result = run(verbs.init, "mine.csv", "--set", "split=cross", "--set", "repeats=2")
    assert result.code == 0, result.err
    text = Path("configs/mine/data.yaml").read_text(encoding="utf-8")
    assert "\nsplit: cross\nfolds: 5\nrepeats: 2\n" in text
    assert "judged by cross-validation it trains 11 times" in " ".join(result.out.split())
    assert "python -m eval" in result.out


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_small_data_gets_the_recipe_for_small_data(run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    assert run(verbs.init, "mine.csv", "--set", "split=cross").code == 0
    train = Path("configs/mine/train.yaml").read_text(encoding="utf-8")
    assert "configs/recommended/small.yaml" in train
    assert "\nlabel_names: true\n" in train


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_names_that_are_no_words_are_not_used_as_sentences(run: Run) -> None:
    write_csv(Path("mine.csv"), [(text, str(len(label))) for text, label in rows()])
    assert run(verbs.init, "mine.csv", "--set", "split=cross").code == 0
    train = Path("configs/mine/train.yaml").read_text(encoding="utf-8")
    assert "\nlabel_names: false\n" in train


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_rare_intents_are_trained_on_and_named_with_a_reason(run: Run) -> None:
    write_csv(Path("mine.csv"), [*rows(), ("please close it", "close")])
    result = run(verbs.init, "mine.csv", "--set", "split=stable")
    assert result.code == 0, result.err
    data, _ = written()
    assert data.rare == "train_only"
    said = comments(Path("configs/mine/data.yaml"))
    assert "1 intent has too few rows to stand in every split" in said
    assert "close (1)" in said
    assert run(etl.main, "--config", "configs/mine/data.yaml").code == 0


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_a_given_policy_for_rare_intents_stays(run: Run) -> None:
    write_csv(Path("mine.csv"), [*rows(), ("please close it", "close")])
    words = ("mine.csv", "--set", "split=stable", "--set", "rare=merge:other")
    assert "still rare" in run(verbs.init, *words).one_line_error()
    assert run(verbs.init, *words[:-1], "rare=drop").code == 0
    assert written()[0].rare == "drop"


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_without_rare_intents_nothing_is_said_of_them(run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    assert run(verbs.init, "mine.csv", "--set", "split=stable").code == 0
    assert "rare" not in Path("configs/mine/data.yaml").read_text(encoding="utf-8").lower()


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_another_language_names_the_encoder_to_set(run: Run) -> None:
    pairs = [(f"{text} {number}", label) for number in range(4) for text, label in GERMAN]
    write_csv(Path("mine.csv"), pairs)
    result = run(verbs.init, "mine.csv")
    assert result.code == 0, result.err
    said = comments(Path("configs/mine/train.yaml"))
    assert "German" in said
    assert "model_name: intfloat/multilingual-e5-small" in said
    assert "intfloat/multilingual-e5-small" in result.out


@pytest.mark.usefixtures("measured", "tiny_recipes")
@pytest.mark.parametrize("name", ["#1: yes.csv", 'it\'s "mine".csv', "größe - 2024.csv"])
def test_names_with_a_meaning_in_yaml_are_written_as_they_stand(name: str, run: Run) -> None:
    write_csv(Path(name), rows(), header="- text: #1,null")
    columns = ("--set", "text_column=- text: #1", "--set", "label_column='null'")
    result = run(verbs.init, name, "--name", "mine", *columns)
    assert result.code == 0, result.err
    data, _ = written()
    assert data.dataset_name == name
    assert (data.text_column, data.label_column) == ("- text: #1", "null")


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_files_that_are_there_stay_unless_they_may_be_replaced(run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    folder = Path("configs/mine")
    folder.mkdir(parents=True)
    (folder / "train.yaml").write_text("mine\n")
    (folder / "notes.txt").write_text("mine too\n")

    error = run(verbs.init, "mine.csv").one_line_error()
    assert "configs/mine/train.yaml exists" in error
    assert "--overwrite" in error
    assert (folder / "train.yaml").read_text() == "mine\n"
    assert not (folder / "data.yaml").exists()

    assert run(verbs.init, "mine.csv", "--overwrite").code == 0
    assert written()[1].regime == "head-only"
    assert (folder / "notes.txt").read_text() == "mine too\n"


@pytest.mark.usefixtures("measured", "tiny_recipes")
def test_a_call_killed_between_its_files_goes_on_and_a_file_of_others_stays(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(Path("mine.csv"), rows())
    folder = Path("configs/mine")
    write_text = files.write_text

    def die_at_train(path: Path, text: str) -> None:
        if path == folder / "train.yaml":
            raise KeyboardInterrupt
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", die_at_train)
        assert run(verbs.init, "mine.csv").code == 130
    assert files.list_files(folder) == ["data.yaml"]
    result = run(verbs.init, "mine.csv")
    assert result.code == 0, result.err

    (folder / "train.yaml").unlink()
    (folder / "data.yaml").write_text("mine")
    assert "data.yaml exists" in run(verbs.init, "mine.csv").one_line_error()
    assert files.list_files(folder) == ["data.yaml"]


def test_an_output_of_somebody_else_is_refused_before_anything_is_read(run: Run) -> None:
    write_csv(Path("mine.csv"), rows())
    Path("data/mine").mkdir(parents=True)
    Path("data/mine/thesis.txt").write_text("mine\n")
    assert "it holds thesis.txt" in run(verbs.init, "mine.csv").one_line_error()

    Path("file").write_text("")
    assert "file is a file" in run(verbs.init, "mine.csv", "--output-dir", "file").one_line_error()
    assert not Path("configs").exists()


@pytest.mark.parametrize(
    "content", ["text,label\n", "one,two\nhello,greet\n", "text,label\nhello,greet\n"]
)
def test_a_bad_source_is_refused_as_etl_refuses_it(content: str, run: Run) -> None:
    Path("mine.csv").write_text(content)
    config = write_yaml(Path("bare.yaml"), dataset_name="mine.csv", output_dir="data/mine")
    refused = run(etl.main, "--config", config).one_line_error()
    assert run(verbs.init, "mine.csv").one_line_error() == refused
    assert not Path("configs").exists()


def test_a_source_that_does_not_exist_is_refused(run: Run) -> None:
    message = run(verbs.init, "nowhere.csv").one_line_error()
    assert "nowhere.csv does not exist. Correct the path; " in message
    assert "dataset_name" not in message
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("tiny_recipes")
def test_without_an_encoder_there_is_no_estimate_and_it_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.first_steps import probe

    def fail(*_: object) -> Measured:
        raise ModelError("the package with the encoder is not installed", "Install it")

    monkeypatch.setattr(probe, "measure", fail)
    write_csv(Path("mine.csv"), rows())
    result = run(verbs.init, "mine.csv")
    assert result.code == 0, result.err
    reason = "No estimate of time and memory: the package with the encoder is not installed"
    assert reason in result.out
    assert reason in comments(Path("configs/mine/train.yaml"))
    assert written()[1].regime == "head-only"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("mine.csv.gz", "mine"),
        ("my export (2).xlsx", "my-export-2"),
        ("faq.yml", "faq"),
        ("v1.2", "v1.2"),
        ("owner/some-set", "some-set"),
        ("größe.csv", "gr-e"),
        ("日本.csv", "mine"),
        # data/bundled holds the file itself.
        ("bundled", "embedded"),
    ],
)
def test_a_name_is_made_after_the_source(source: str, name: str) -> None:
    if source.endswith((".gz", ".xlsx", ".yml", ".csv")):
        Path(source).touch()
    assert init.name_of(source, None) == name


def test_a_folder_gives_its_name_also_where_it_is_the_working_folder(tmp_path: Path) -> None:
    folder = tmp_path / "v1.2"
    folder.mkdir()
    assert init.name_of(str(folder), None) == "v1.2"
    assert init.name_of(".", None) == init.NO_NAME.sub("-", tmp_path.name).strip("-._")


@pytest.mark.usefixtures("tiny_recipes", "measured")
def test_labels_that_are_likely_no_intents_come_with_the_option_that_works(run: Run) -> None:
    more = [(f"what is this {number}", "Other / unclear") for number in range(20)]
    write_csv(Path("mine.csv"), [*rows(), *more])
    printed = " ".join(run(verbs.init, "mine.csv").out.split())
    option = "out_of_scope_labels=[Other / unclear]"
    assert f'--set "{option}"' in printed
    assert "Publishing, which checks and exports the model, takes some minutes" in printed
    assert "Publishing," in comments(Path("configs/mine/train.yaml"))

    run(verbs.init, "mine.csv", "--overwrite", "--set", option)
    assert written()[0].out_of_scope_labels == ["Other / unclear"]


@pytest.mark.usefixtures("tiny_recipes", "measured")
def test_a_source_in_the_folder_is_named_with_set_as_errors_advise(run: Run) -> None:
    Path("folder").mkdir()
    source = write_csv(Path("folder/mine.csv"), rows())
    run(verbs.init, "folder", "--set", f"dataset_name={source}", "--name", "mine")
    assert written()[0].dataset_name == str(source)


def test_a_name_that_is_no_folder_is_refused(run: Run) -> None:
    error = run(verbs.init, "mine.csv", "--name", "../up").one_line_error()
    assert '--name "../up"' in error


def test_time_follows_from_the_measurements() -> None:
    work = Workload(train_rows=1000, val_rows=100, intents=10)

    plain = estimate(RECIPE, MEASURED, work)
    # Loading, four epochs, and the validation rows after each.
    assert plain.seconds == pytest.approx(1 + 4 * 1000 * 0.02 + 4 * 100 * 0.01)
    assert plain.memory == 900_000_000

    probed = RECIPE.model_copy(update={"head_init": "probe"})
    assert estimate(probed, MEASURED, work).seconds == pytest.approx(plain.seconds + 1100 * 0.01)

    # Ten intents of four sentences in each of 125 steps, and one more pass for the probe after it.
    section = ContrastiveSection(steps=125, intents=32, sentences=4)
    staged = probed.model_copy(update={"contrastive": section})
    expected = plain.seconds + 2 * 1100 * 0.01 + 125 * 40 * 0.02
    assert estimate(staged, MEASURED, work).seconds == pytest.approx(expected)

    head = RECIPE.model_copy(update={"regime": "head-only"})
    seconds = 1 + 1100 * 0.01 + 4 * 1000 * 0.001
    assert estimate(head, MEASURED, work).seconds == pytest.approx(seconds)


def test_cross_validation_trains_once_for_each_part_and_once_more() -> None:
    free = replace(MEASURED, load_seconds=0.0, forward_seconds=0.0)
    whole = Workload(train_rows=100, val_rows=0, intents=10)
    crossed = Workload(train_rows=100, val_rows=0, intents=10, folds=5, repeats=2)

    assert crossed.trainings == 11
    one = estimate(RECIPE, free, whole).seconds
    # Each of ten trainings has four fifths of the rows.
    assert estimate(RECIPE, free, crossed).seconds == pytest.approx(one * (1 + 10 * 0.8))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "a few seconds"),
        (6, "about 10 s"),
        (44, "about 40 s"),
        (94, "about 90 s"),
        (125, "about 2 min"),
        (700, "about 12 min"),
        (1330, "about 20 min"),
        (5300, "about 90 min"),
        (9000, "about 2.5 h"),
        (90_000, "about 25 h"),
    ],
)
def test_an_estimate_is_no_more_precise_than_it_is(seconds: float, words: str) -> None:
    assert about(seconds) == words


def costs(lora_seconds: float, lora_memory: int = 10**9) -> dict[Regime, Estimate]:
    return {
        "head-only": Estimate(20, 10**9),
        "lora": Estimate(lora_seconds, lora_memory),
        "full-ft": Estimate(2 * lora_seconds, 2 * 10**9),
    }


@pytest.mark.parametrize(
    ("work", "estimates", "name", "reason"),
    [
        (Workload(5000, 500, 9), costs(600), "lora", "enough to train the encoder: about 10 min"),
        (Workload(5000, 500, 9), costs(3000), "head-only", "LoRA would take about 50 min"),
        (Workload(5000, 500, 9), costs(600, 10**10), "head-only", "LoRA needs 10.0 GB, and 8.0 GB"),
        (Workload(900, 90, 9), costs(60), "head-only", "fewer than the 1,000"),
        (Workload(900, 0, 9, folds=5), costs(60), "head-only", "it trains 6 times"),
        (Workload(5000, 500, 9), None, "head-only", "could not be measured"),
    ],
)
def test_the_regime_follows_from_sentences_time_and_memory(
    work: Workload, estimates: choice.Estimates | None, name: str, reason: str
) -> None:
    chosen = choice.choose_regime(work, estimates, free_memory=8 * 10**9)
    assert chosen.name == name
    assert reason in chosen.reason


@pytest.mark.usefixtures("tiny_recipes")
def test_a_busy_machine_is_said_to_be_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def measure(_: object, count: int) -> Measured:
        threads.append(count)
        return MEASURED

    monkeypatch.setattr(proposal, "measure", measure)
    monkeypatch.setattr(machine, "load", lambda: 3.0)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(proposal, "cores", lambda: 4)
    write_csv(Path("mine.csv"), rows())
    result = run(verbs.init, "mine.csv")
    assert threads == [1]
    assert "load 3.0 on 4 cores): set OMP_NUM_THREADS=1" in " ".join(result.out.split())


def test_the_help_says_what_a_source_can_be(run: Run) -> None:
    text = " ".join(run(verbs.init, "--help").out.split())
    for word in ("data.yaml", "train.yaml", "--overwrite", "Excel", "bundled"):
        assert word in text
