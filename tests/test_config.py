"""Configs: those that are shipped and the original ones load, and a mistake gets one clear line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, Run, write_yaml

import etl
import eval as evaluate
import multiregime
from bankintent import config, configfile
from bankintent.errors import ConfigError

TRAIN = {"model_name": "bundled/all-MiniLM-L6-v2", "output_dir": "out", "regime": "lora"}


def load_train(*overrides: str, **values: object) -> config.TrainConfig:
    path = write_yaml(Path("train.yaml"), **(TRAIN | values))
    return configfile.load(config.TrainConfig, path, overrides)


def test_every_shipped_config_loads() -> None:
    models = {
        "audit": config.AuditConfig,
        "data": config.DataConfig,
        "serve": config.ServeConfig,
        "compare": config.CompareConfig,
    }
    models["baseline"] = config.BaselineConfig
    paths = sorted((REPOSITORY / "configs").rglob("*.yaml"))
    assert len(paths) >= 7
    for path in paths:
        model = models.get(path.stem, config.TrainConfig)
        flags = {}
        if model is config.TrainConfig and "regime" not in yaml.safe_load(path.read_text()):
            flags = {"regime": "lora"}  # it is for the command line to say
        configfile.load(model, path, **flags)


@pytest.mark.parametrize("regime", ["head-only", "lora", "full-ft"])
def test_the_measured_recipes_are_the_recommended_ones(regime: str) -> None:
    recommended = yaml.safe_load((REPOSITORY / f"configs/recommended/{regime}.yaml").read_text())
    measured = yaml.safe_load((REPOSITORY / f"configs/banking77/{regime}.yaml").read_text())
    places = {"data_dir", "output_dir"}
    assert recommended["regime"] == regime
    # The records in docs/results are of the last epoch.
    assert measured.pop("keep", "last") == "last"
    assert {key: measured[key] for key in measured.keys() - places} == {
        key: recommended[key] for key in recommended.keys() - places
    }


def test_the_recipes_for_deberta_read_what_it_can_give() -> None:
    # Its classes read the first token; a mean is known for other families alone.
    for path in sorted((REPOSITORY / "configs").rglob("*.yaml")):
        values = yaml.safe_load(path.read_text())
        if "deberta" in values.get("model_name", ""):
            assert "pooling" not in values, path


def test_the_original_files_load_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(
        """
model_name: "microsoft/deberta-v3-base"
batch_size: 64
lr: 1e-3
epochs: 10
weight_decay: 0.01
lora: {r: 16, alpha: 32, dropout: 0.1,
       target_modules: [query_proj, key_proj, value_proj, output_proj]}
output_dir: "artifacts/models/deberta_lora"
"""
    )
    assert yaml.safe_load("lr: 1e-3") == {"lr": "1e-3"}  # a string, by YAML 1.1
    settings = configfile.load(config.TrainConfig, tmp_path / "train.yaml", regime="lora")
    assert settings.lr == 0.001
    assert settings.lora.target_modules == ["query_proj", "key_proj", "value_proj", "output_proj"]
    (tmp_path / "data.yaml").write_text(
        'dataset_name: "banking77"\ntest_split: 0.10\nval_split: 0.10\nseed: 6\noutput_dir: "data/processed"\n'
    )
    data = configfile.load(config.DataConfig, tmp_path / "data.yaml")
    assert (data.split, data.test_split, data.asks_for_test_split) == (None, 0.1, True)


def test_overrides_are_typed_and_reach_sections() -> None:
    settings = load_train(
        "lora.r=8", "lr=5e-4", "lora.target_modules=[query, value]", "early_stopping=3"
    )
    assert settings.lora.r == 8
    assert settings.lr == 5e-4
    assert settings.lora.target_modules == ["query", "value"]
    assert settings.early_stopping == 3
    assert load_train("early_stopping=null").early_stopping is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lerning_rate": 1}, 'unknown key "lerning_rate"'),
        ({"epoch": 1}, 'unknown key "epoch", did you mean "epochs"?'),
        ({"lora": {"rank": 1, "alhpa": 2}}, 'unknown key "lora.alhpa", did you mean "alpha"?'),
        ({"lr": "fast"}, "lr: input should be a valid number"),
        ({"lr": -1}, "lr: input should be greater than 0, found -1"),
        ({"seed": None}, "seed: input should be a valid integer, found null"),
        ({"lr": float("nan")}, "lr: input should be a finite number"),
        ({"epochs": 2.5}, "epochs: input should be a valid integer"),
        ({"epochs": True}, "epochs: true is no value for this key"),
        ({"batch_size": 0}, "batch_size: input should be greater than or equal to 1, found 0"),
        ({"warmup": 1}, "warmup: input should be less than 1"),
        ({"regime": "qlora"}, "'head-only', 'lora' or 'full-ft', found 'qlora'"),
        ({"precision": "int8"}, "'auto', 'fp32', 'bf16' or 'fp16'"),
        ({"lora": {"target_modules": []}}, "an empty list adapts nothing"),
        ({"lora": 3}, "lora: "),
        ({"model_name": ""}, "model_name: "),
        (
            {"contrastive": {}, "regime": "head-only"},
            "contrastive: trains the encoder, which head-only keeps frozen",
        ),
        ({"distill": {}}, 'the key "distill.layers" is missing: Encoder layers of the student'),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_train(**values)
    assert expected in str(caught.value)
    assert "train.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr: [", "line 1"),
        ("- a\n- b\n", "does not hold `key: value` lines"),
        ("lr: 1\nlr: 2\n", 'line 2: the key "lr" stands twice'),
        ("", 'the key "model_name" is missing'),
    ],
)
def test_a_broken_file_is_refused_with_its_line(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"train\.yaml") as caught:
        configfile.load(config.TrainConfig, tmp_path / "train.yaml")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "override", ["lr", "=3", "lora.=3", "lr.x=3", "lora.r=[", "model_name.x=1"]
)
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        load_train(override)


def load_data(*overrides: str, text: str = "dataset_name: x\n") -> config.DataConfig:
    path = Path("data.yaml")
    path.write_text(text)
    return configfile.load(config.DataConfig, path, overrides)


TEXTS = [
    "#intent",
    "yes",
    "0123",
    "a: b",
    "2024-01-01",
    ".inf",
    "1:30",
    "[x].csv",
    "{a}",
    " Topic ",
]


@pytest.mark.parametrize("text", [*TEXTS, "a # b", "'a' or 'b'", "-", "*x", "%", "\t"])
def test_an_override_of_a_text_is_taken_as_it_stands(text: str) -> None:
    assert load_data(f"label_column={text}").label_column == text
    assert load_data(f"dataset_name={text}").dataset_name == text
    assert load_data(f"output_dir={text}").output_dir == Path(text)


def test_null_unsets_a_key_and_quotes_make_it_a_text() -> None:
    file = "dataset_name: x\nlabel_column: y\nfew_shot: 3\n"
    assert load_data("label_column=null", text=file).label_column is None
    assert load_data("few_shot=null", text=file).few_shot is None
    assert load_data("label_column='null'").label_column == "null"
    assert load_data('label_column="#intent"').label_column == "#intent"
    with pytest.raises(ConfigError, match="dataset_name: input should be a valid string"):
        load_data("dataset_name=null")


@pytest.mark.parametrize("override", ["label_column=", "seed=", "split="])
def test_an_override_without_a_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"has no value\. Write null to unset a key"):
        load_data(override)


def test_a_text_that_may_be_empty_can_be_set_to_that() -> None:
    overrides = ["input=a", "output=b", "model_dir=c", "prefix="]
    assert configfile.load(config.ScoreConfig, None, overrides).prefix == ""


@pytest.mark.parametrize(
    "text", ["yes", "0123", "2024-01-01", ".inf", "1:30", "1_000", "0x1F", "off"]
)
def test_a_text_of_a_file_is_taken_as_it_stands(text: str) -> None:
    assert load_data(text=f"dataset_name: x\ntext_column: {text}\n").text_column == text


@pytest.mark.parametrize(
    ("line", "to_do"),
    [
        ("label_column: Topic: fine", 'Put a value that holds ": " into quotes'),
        ("label_column:\n\tTopic", "Indent with blanks, not with tabs"),
        ("label_column: @topic", "begins with one of * & ! % @ ` into quotes"),
        ("label_column: *topic", "begins with one of * & ! % @ ` into quotes"),
        ("label_column: [a", "Close the bracket"),
        ("label_column: 'a", "Close the quotes"),
        ('label_column: "a\\q"', "Use single quotes"),
    ],
)
def test_what_mostly_makes_a_file_no_yaml_is_said(line: str, to_do: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_data(text=f"dataset_name: x\n{line}\n")
    assert "data.yaml line " in str(error.value)
    assert to_do in str(error.value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Other / unclear", "[Other / unclear]"),
        ("oos, other", "[oos, other]"),
        ("a: b", "['a: b']"),
        ("a]", "['a]']"),
    ],
)
def test_a_value_in_the_place_of_a_list_is_shown_as_one(value: str, written: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_data("dataset_name=x", f'out_of_scope_labels="{value}"')
    assert str(error.value).startswith(
        "data.yaml: out_of_scope_labels: input should be a list, found "
    )
    assert f"; write {written}. Correct" in str(error.value)

    assert isinstance(
        load_data("dataset_name=x", f"out_of_scope_labels={written}"), config.DataConfig
    )


@pytest.mark.parametrize("where", ["file", "override"])
@pytest.mark.parametrize("written", ["010", "1_0", "+10", "10.0", "'10'"])
def test_a_number_is_decimal(written: str, where: str) -> None:
    if where == "file":
        assert load_data(text=f"dataset_name: x\nseed: {written}\n").seed == 10
    else:
        assert load_data(f"seed={written}").seed == 10


@pytest.mark.parametrize("written", ["0x10", "0o10", "0b10", "1:30", "2024-01-01", "ten", "yes"])
def test_what_is_no_decimal_number_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="seed: "):
        load_data(f"seed={written}")
    with pytest.raises(ConfigError, match="seed: "):
        load_data(text=f"dataset_name: x\nseed: {written}\n")


@pytest.mark.parametrize("line", ["label_column: #intent", "label_column:", "label_column:   "])
def test_a_key_without_a_value_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ConfigError, match=r"line 2: the key \"label_column\" has no value \(a #"):
        load_data(text=f"dataset_name: x\n{line}\nseed: 6\n")


def test_lists_sections_and_dictionaries_of_texts_hold_them_as_they_stand() -> None:
    assert load_train("lora.target_modules=[on, 010]").lora.target_modules == ["on", "010"]
    assert load_train("lora.target_modules=auto").lora.target_modules == "auto"
    assert load_train("contrastive={steps: 3}").contrastive == config.ContrastiveSection(steps=3)
    assert load_train("tracking.enabled=no").tracking.enabled is False

    Path("baseline.yaml").write_text("references: [tfidf]\nlabel_texts: {yes: on, 010: no}\n")
    baseline = configfile.load(
        config.BaselineConfig, Path("baseline.yaml"), ["label_texts.null=off # x"]
    )
    assert baseline.label_texts == {"yes": "on", "010": "no", "null": "off # x"}


def test_a_section_may_be_merged_into_another() -> None:
    Path("train.yaml").write_text(
        "model_name: a\nregime: lora\noutput_dir: o\n"
        "lora: &lora {r: 4}\ncontrastive: {<<: {lr: 1e-3, steps: 2}, steps: 3}\n"
    )
    settings = configfile.load(config.TrainConfig, Path("train.yaml"))
    assert settings.contrastive == config.ContrastiveSection(steps=3, lr=1e-3)


def test_a_value_that_holds_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="a value holds itself"):
        load_data(text="dataset_name: &x [*x]\n")


def test_split_shares_must_leave_a_train_split() -> None:
    path = write_yaml(Path("data.yaml"), dataset_name="bundled", test_split=0.6, val_split=0.5)
    with pytest.raises(ConfigError, match="leaves no train"):
        configfile.load(config.DataConfig, path)


def test_commands_refuse_with_one_line_and_leave_nothing(tmp_path: Path, run: Run) -> None:
    missing = run(etl.main, "--cfg-path", "nowhere.yaml").one_line_error()
    assert "nowhere.yaml does not exist" in missing
    without_regime = {key: value for key, value in TRAIN.items() if key != "regime"}
    config_path = write_yaml(tmp_path / "train.yaml", data_dir="nodata", **without_regime)
    no_regime = run(multiregime.main, "--train-config", config_path).one_line_error()
    assert 'the key "regime" is missing' in no_regime
    assert "add --regime head-only, lora or full-ft, or regime: to the config" in no_regime
    assert (
        "found 'qlora'"
        in run(multiregime.main, "--config", config_path, "--regime", "qlora").one_line_error()
    )
    no_data = run(multiregime.main, "--config", config_path, "--regime", "lora").one_line_error()
    assert "nodata holds no ETL output" in no_data
    assert "python -m etl with the data.yaml whose output_dir is nodata" in no_data
    assert "does not exist" in run(evaluate.main, "--checkpoint_path", "no/model").one_line_error()
    assert 'key "checkpoint_path" is missing' in run(evaluate.main).one_line_error()
    assert [path.name for path in tmp_path.iterdir()] == ["train.yaml"]


def test_a_mistyped_option_exits_with_2_and_no_traceback(run: Run) -> None:
    result = run(etl.main, "--confg", "x")
    assert result.code == 2
    assert "No such option" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("module", ["etl", "multiregime", "baseline", "eval"])
def test_help_and_config_errors_import_no_heavy_library(module: str) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['{module}', '--config', 'nowhere.yaml']\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code)\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'pandas',"
        " 'matplotlib', 'sklearn', 'datasets', 'peft'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.split("\n")[:2] == ["2", "[]"], done.stdout + done.stderr
    help_page = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert "--set" in help_page.stdout
    assert "--config" in help_page.stdout
