"""Models of other people: refused in one line, or answered as the model that they are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, train_config, write_csv
from faults import foreign_models
from faults.foreign_models import NAMES, TEXTS, Situation, write_classifier
from tiny_models import rows, tiny_encoder

import eval as evaluate
import multiregime
from bankintent.bundle import layout
from bankintent.errors import LabelError, ModelError, UserError
from bankintent.labels import LabelSchema

LABELS = LabelSchema(("one", "three", "two"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier that is damaged here; each test takes a copy."""
    return write_classifier(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(classifier: Path, tmp_path: Path) -> Path:
    return shutil.copytree(classifier, tmp_path / "model")


def change(folder: Path, name: str) -> None:
    """Apply the change of a situation of `faults.foreign_models`."""
    every: list[Situation] = [
        *foreign_models.files(),
        *foreign_models.weights(),
        *foreign_models.settings(),
        *foreign_models.labels(),
    ]
    [situation] = [situation for situation in every if situation.name == name]
    situation.change(folder)


def test_models_that_are_damaged_or_odd_are_refused_or_answer_as_before() -> None:
    tally = foreign_models.run(40)
    assert tally.tried >= 25
    assert not tally.gave_way, "\n".join(tally.lines())


@pytest.mark.proof
def test_many_damages_are_refused_or_change_nothing() -> None:
    tally = foreign_models.run(300)
    assert not tally.gave_way, "\n".join(tally.lines())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no tokenizer files", "holds no tokenizer"),
        ("tokenizer.json removed", "cannot be loaded: Couldn't instantiate the backend tokenizer"),
        ("a tokenizer class without its vocabulary", "knows no token but its 5 special ones"),
        ("a table of another tokenizer", "tokens up to id"),
        ("more tokens than rows", "tokens up to id"),
        ("labels.json in another order", 'id 0 is "9" against "card_lost"'),
        ("placeholders", "in the order of the ids that it was trained with"),
        ("numbers as names", "label 0 is 0, which is no text"),
        ("a name twice", '"card_lost" is the name of label 0 and of label 1'),
        ("an empty name", "label 0 has an empty name"),
        ("label2id contradicts", "and the names in order of ids do not"),
        ("num_labels contradicts", "num_labels 4 and 6 names"),
        ("problem_type multi_label_classification", "problem_type is multi_label_classification"),
        ("problem_type regression", "problem_type is regression"),
        ("one output", "problem_type is regression"),
        ("a model for TokenClassification", "BertForTokenClassification, no sequence classifier"),
        ("an adapter beside", "holds a model and an adapter"),
        ("a shard elsewhere", "names weights outside of its folder (../elsewhere/"),
        ("a shard missing", "is missing or no file"),
        ("remote code of an unknown model", "contains custom code"),
        ("NaN in LayerNorm", "holds a weight that is no finite number"),
        ("whole numbers", "is of I32, no floating point"),
        ("model.safetensors cut to 50%", "is no whole file of weights"),
        ("config.json a folder", "config.json cannot be read"),
        ("tokenizer_config.json is b'null'", "holds no JSON object"),
        ("no padding token", "has no padding token"),
    ],
)
def test_a_fault_of_a_classifier_is_named(name: str, says: str, folder: Path) -> None:
    from bankintent.inference.choice import find

    change(folder, name)
    with pytest.raises(UserError) as caught:
        find(folder).load()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no tokenizer files", "holds no tokenizer"),
        ("model.safetensors cut to 50%", "is no whole file of weights"),
        ("model.safetensors a folder", "cannot be loaded"),
        ("a row less of word_embeddings", "does not hold the weights that its config describes"),
        ("layer 1 missing", "does not hold the weights that its config describes"),
        ("NaN in LayerNorm", "no finite number"),
        ("an adapter beside", "holds a model and an adapter"),
        ("a shard elsewhere", "outside of its folder"),
        ("no padding token", "has no padding token"),
    ],
)
def test_a_fault_of_a_model_to_train_on_is_named(
    name: str, says: str, tiny_bert: Path, tmp_path: Path
) -> None:
    from bankintent.training.backbones import load_backbone

    base = shutil.copytree(tiny_bert, tmp_path / "base")
    change(base, name)
    with pytest.raises(UserError) as caught:
        load_backbone(str(base), LABELS, 32)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_commands_refuse_in_one_line_with_code_2(
    folder: Path, tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    table = write_csv(tmp_path / "table.csv", rows(2))
    change(folder, "no tokenizer files")
    words = ("--checkpoint-path", folder, "--data", table, "--set", "tracking.enabled=false")
    assert "holds no tokenizer" in run(evaluate.main, *words).one_line_error()

    base = shutil.copytree(tiny_bert, tmp_path / "base")
    for name in ("model.safetensors cut to 50%", "model.safetensors a folder"):
        change(base, name)
        config = train_config(tmp_path / "train.yaml", base, data_dir, tmp_path / "out")
        result = run(multiregime.main, "--config", config, "--regime", "head-only")
        assert "base" in result.one_line_error()
        assert not (tmp_path / "out.work").exists()
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2", "xlnet"])
def test_answers_do_not_depend_on_the_side_that_a_tokenizer_pads(
    architecture: str, tmp_path: Path
) -> None:
    from bankintent.inference.predictor import Predictor
    from bankintent.training.backbones import load_backbone

    whole = write_classifier(tmp_path / "whole", architecture)
    expected = Predictor.load(whole).logits(TEXTS, batch_size=1)
    for side in ("left", "right"):
        other = shutil.copytree(whole, tmp_path / side)
        foreign_models.tokenizer_config(padding_side=side)(other)
        predictor = Predictor.load(other)
        np.testing.assert_allclose(predictor.logits(TEXTS), expected, atol=1e-4)

        # The tokenizer that training takes, and saves with the model.
        own_side = "left" if architecture == "xlnet" else "right"
        assert load_backbone(str(other), LABELS, 32).tokenizer.padding_side == own_side


@pytest.mark.proof
def test_an_exported_model_pads_as_the_loaded_one(tmp_path: Path) -> None:
    from bankintent.export.onnx_export import write_onnx
    from bankintent.inference.exported_runtime import KINDS, ExportedModel
    from bankintent.inference.predictor import Predictor

    folder = write_classifier(tmp_path / "model")
    foreign_models.tokenizer_config(padding_side="left")(folder)
    predictor = Predictor.load(folder)
    expected = predictor.logits(TEXTS, batch_size=1)
    (tmp_path / "onnx").mkdir()
    write_onnx(predictor, "tiny", tmp_path / "onnx")

    model = ExportedModel(tmp_path / "onnx", KINDS["onnx"], threads=1)
    assert model.settings.padding_side == "right"
    alone = [model.logits(model.tokenize([text])) for text in TEXTS]
    np.testing.assert_allclose(np.concatenate(alone), expected, atol=1e-4)
    np.testing.assert_allclose(model.logits(model.tokenize(TEXTS)), expected, atol=1e-4)


def test_a_decoder_takes_the_padding_token_of_its_tokenizer_where_its_config_has_none(
    tmp_path: Path,
) -> None:
    from bankintent.inference.predictor import Predictor

    folder = write_classifier(tmp_path / "model", "gpt2")
    foreign_models.config(pad_token_id=None)(folder)
    predictor = Predictor.load(folder)
    assert predictor.model.config.pad_token_id == 0

    foreign_models.config(pad_token_id=7)(folder)
    with pytest.raises(ModelError, match="is 7 to its config and 0 to its tokenizer"):
        Predictor.load(folder)


def test_models_without_a_table_of_tokens_and_tables_with_spare_rows_are_taken(
    folder: Path,
) -> None:
    from bankintent.inference.loaded import _require_vocabulary, token_table
    from bankintent.inference.predictor import Predictor

    foreign_models.pad_table(127)(folder)
    predictor = Predictor.load(folder)

    # CANINE's tokens are code points, which it hashes.
    class Hashing:
        def get_input_embeddings(self) -> None:
            raise NotImplementedError

    assert token_table(Hashing()) is None
    _require_vocabulary(Hashing(), predictor.tokenizer, "canine")


def test_a_byte_level_model_is_no_empty_one(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer, T5Config, T5ForSequenceClassification

    from bankintent.inference.predictor import Predictor

    config = T5Config(
        vocab_size=384,
        d_model=16,
        d_kv=4,
        d_ff=16,
        num_layers=1,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    T5ForSequenceClassification(config).save_pretrained(tmp_path / "byt5")
    ByT5Tokenizer().save_pretrained(tmp_path / "byt5")
    assert Predictor.load(tmp_path / "byt5").labels.names == ("no", "yes")


def test_labels_json_names_what_a_config_leaves_without_names(folder: Path) -> None:
    change(folder, "placeholders and labels.json")
    assert layout.open_checkpoint(folder).labels.names == NAMES

    # Names that the config has the other way round must agree, too.
    turned = {name: index for index, name in enumerate(NAMES[::-1])}
    foreign_models.config(label2id=turned)(folder)
    with pytest.raises(ModelError, match="label2id has"):
        layout.open_checkpoint(folder)

    LabelSchema(NAMES[1:]).save(folder / "labels.json")
    with pytest.raises(LabelError, match="5 labels against 6"):
        layout.open_checkpoint(folder)


def test_label_files_with_names_that_are_none_are_refused(tmp_path: Path) -> None:
    for names, says in ((("a", " "), "label 1 has an empty name"), (("a", "a"), "of label 1")):
        LabelSchema(names).save(tmp_path / "labels.json")
        with pytest.raises(LabelError, match=says):
            LabelSchema.load(tmp_path / "labels.json")


def test_a_snapshot_of_the_hubs_cache_is_served_and_trained_on(
    folder: Path, tmp_path: Path
) -> None:
    from bankintent.inference.predictor import Predictor
    from bankintent.training.backbones import load_backbone

    expected = Predictor.load(folder).logits(TEXTS)
    foreign_models.hub_snapshot(folder)
    assert (folder / "model.safetensors").is_symlink()
    np.testing.assert_array_equal(Predictor.load(folder).logits(TEXTS), expected)

    base = tiny_encoder("bert", tmp_path / "other" / "base")
    foreign_models.hub_snapshot(base)
    assert load_backbone(str(base), LABELS, 32).new_modules == ("classifier",)


def test_an_adapter_of_a_bundle_that_names_another_base_is_refused(bundle: Path) -> None:
    shutil.rmtree(bundle / "merged")
    assert layout.open_checkpoint(bundle).adapter is not None

    path = bundle / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text()) | {"base_model_name_or_path": "someone/other"}
    path.unlink()  # the file may have other names
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"adapter_config\.json was changed"):
        layout.open_checkpoint(bundle)


def test_a_teacher_is_opened_as_every_classifier(folder: Path) -> None:
    from bankintent.training.methods.distillation import _open_merged

    change(folder, "problem_type multi_label_classification")
    with pytest.raises(ModelError, match="problem_type"):
        _open_merged(str(folder))


def test_a_model_to_train_on_cuts_texts_at_the_end(tiny_bert: Path, tmp_path: Path) -> None:
    from bankintent.training.backbones import load_backbone

    base = shutil.copytree(tiny_bert, tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"truncation_side": "left"}))
    tokenizer = load_backbone(str(base), LABELS, 8).tokenizer
    assert tokenizer("card" + " lost" * 20, truncation=True)["input_ids"][:2] == [
        tokenizer.cls_token_id,
        tokenizer.convert_tokens_to_ids("card"),
    ]
    assert tokenizer.truncation_side == "right"
