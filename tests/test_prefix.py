"""`prefix`: a text before every sentence, in the tokenizer, so that every form of a model reads it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BuildOnce, Run, checked_in_this_process, train_config, train_in
from tiny_models import byte_level_tokenizer, rows, tiny_encoder, tiny_tokenizer

import multiregime
from bankintent.bundle import layout
from bankintent.config import AuditConfig, TrainConfig
from bankintent.corpus import dataset
from bankintent.decision.deciding import decide
from bankintent.errors import ModelError
from bankintent.explanation.explainer import Explainer, explain
from bankintent.inference import choice
from bankintent.inference.exported_inputs import ExportedInputs
from bankintent.labels import LabelSchema
from bankintent.training import identity

LABELS = LabelSchema(("card_lost", "Exchange", "top_up"))
PREFIX = "exchange rate: "
TEXT = "i lost my card"


def metaspace_tokenizer() -> Any:
    """Unigram over words and characters with blanks as marks, as SentencePiece models have it."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [f"▁{word}" for word in f"{PREFIX} {TEXT}".replace(":", "").split()]
    pieces = ["<pad>", "<s>", "</s>", "<unk>", "▁", ":", *dict.fromkeys(words), *"abcdefghijklmno"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


def bert_tokenizer() -> Any:
    """Of the architecture's own class, which makes its normalisation anew where it is loaded."""
    from transformers import BertTokenizer

    backend = tiny_tokenizer().backend_tokenizer
    return BertTokenizer(vocab=backend.get_vocab())


def xlm_roberta_tokenizer() -> Any:
    """Of the class that multilingual E5 encoders have."""
    from transformers import XLMRobertaTokenizer

    model = json.loads(metaspace_tokenizer().backend_tokenizer.to_str())["model"]
    return XLMRobertaTokenizer(vocab=[tuple(piece) for piece in model["vocab"]])


TOKENIZERS = {
    "byte-level": byte_level_tokenizer,
    "metaspace": metaspace_tokenizer,
    "BERT's class": bert_tokenizer,
    "XLM-RoBERTa's class": xlm_roberta_tokenizer,
    "wordpiece": tiny_tokenizer,
}


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_saved_tokenizer_reads_the_prefix_before_a_text(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig

    from bankintent.training.prefix import prefix_of, with_prefix

    make = TOKENIZERS[kind]
    plain = make()
    assert prefix_of(plain) is None
    changed = with_prefix(make(), PREFIX, "it")
    assert ids_of(changed, TEXT) == ids_of(plain, PREFIX + TEXT) != ids_of(plain, TEXT)
    assert changed.model_input_names == plain.model_input_names
    assert ids_of(changed, "") == ids_of(plain, "")  # no text, no prefix

    BertConfig().save_pretrained(tmp_path)
    changed.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert prefix_of(again) == PREFIX
    assert dict(again(TEXT)) == dict(changed(TEXT))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_has_one_prefix(kind: str) -> None:
    from bankintent.training.prefix import prefix_of, with_prefix

    plain = TOKENIZERS[kind]()
    once = with_prefix(TOKENIZERS[kind](), PREFIX, "it")
    assert with_prefix(once, PREFIX, "it") is once
    other = with_prefix(once, "card: ", "it")
    assert prefix_of(other) == "card: "
    assert ids_of(other, TEXT) == ids_of(plain, "card: " + TEXT)


def test_the_mark_of_a_blank_is_no_prefix() -> None:
    from tokenizers import normalizers

    from bankintent.training.prefix import prefix_of, with_prefix

    tokenizer = metaspace_tokenizer()
    mark = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(mark)
    assert prefix_of(tokenizer) is None
    changed = with_prefix(tokenizer, PREFIX, "it")
    assert changed.backend_tokenizer.normalizer.normalize_str("card") == "▁exchange▁rate:▁card"


def test_tokenizers_and_prefixes_that_cannot_do_it_are_refused_in_one_line() -> None:
    from transformers import CanineTokenizer

    from bankintent.training.prefix import require_room, with_prefix

    with pytest.raises(ModelError, match="of it is written in Python, and takes no prefix"):
        with_prefix(CanineTokenizer(), PREFIX, "it")
    with pytest.raises(ModelError, match="otherwise than a text that begins with it"):
        with_prefix(tiny_tokenizer(), "[SEP] ", "it")

    changed = with_prefix(byte_level_tokenizer(), PREFIX, "it")
    needed = len(ids_of(changed, "a short text"))
    require_room(changed, needed, "it")
    with pytest.raises(ModelError, match=f"max_length {needed - 1} leaves no room behind"):
        require_room(changed, needed - 1, "it")


def test_a_prefix_is_seen_and_no_students_own() -> None:
    settings = {"model_name": "m", "regime": "full-ft", "output_dir": "out"}
    for prefix in ("", "  ", "\n"):
        with pytest.raises(ValueError, match="a blank prefix changes nothing"):
            TrainConfig.model_validate(settings | {"prefix": prefix})
    with pytest.raises(ValueError, match="remove prefix"):
        TrainConfig.model_validate(settings | {"prefix": PREFIX, "distill": {"layers": 1}})
    with pytest.raises(ValueError, match="prefix is that of train_config"):
        AuditConfig(train_config=Path("train.yaml"), prefix=PREFIX)


def test_vectors_with_another_prefix_are_not_read_from_the_cache(
    tiny_bert: Path, tmp_path: Path
) -> None:
    from bankintent.training import backbones, features

    texts = [text for text, _ in rows(2)]

    def frozen(prefix: str | None) -> Any:
        backbone = backbones.load_backbone(str(tiny_bert), LABELS, 32, prefix=prefix)
        return features.frozen(backbone, LABELS, texts, 4, tmp_path / "cache")

    tables = []
    for prefix in (None, PREFIX, "card: "):
        found = frozen(prefix)
        assert not found.is_cached
        assert frozen(prefix).is_cached
        tables.append(found.table.numpy())
    assert np.abs(tables[0] - tables[1]).max() > 1e-3
    assert np.abs(tables[1] - tables[2]).max() > 1e-3


def test_the_prefix_is_a_part_of_the_run(data_dir: Path) -> None:
    settings = {"model_name": "m", "regime": "full-ft", "output_dir": "out"}
    data = dataset.load(data_dir)

    def of(prefix: str | None) -> Any:
        config = TrainConfig.model_validate(settings | {"prefix": prefix})
        return identity.identity(config, data)

    # An identity of a version without the key.
    assert "prefix" not in of(None)["settings"]
    assert not identity.same(of(None), of(PREFIX))
    assert identity.first_difference(of("card: "), of(PREFIX)) == (
        f"prefix is card: , now {PREFIX}"
    )


@pytest.fixture(scope="module")
def prefixed(build_once: BuildOnce) -> Path:
    """A folder with `data/` and `bundle/`: LoRA with a prefix, on a tokenizer of BERT's own class."""

    def build(folder: Path) -> None:
        encoder = tiny_encoder("bert", folder / "encoder")
        bert_tokenizer().save_pretrained(encoder)
        with checked_in_this_process():
            train_in(folder, rows(), encoder, prefix=PREFIX, export={"onnx": True, "int8": False})

    return build_once("prefixed", build)


def test_every_form_of_a_bundle_reads_the_same_tokens(prefixed: Path, tmp_path: Path) -> None:
    from bankintent.inference.predictor import Predictor

    bundle = prefixed / "bundle"
    expected = ids_of(bert_tokenizer(), PREFIX + TEXT)
    merged = Predictor.load(bundle)
    assert merged.encode([TEXT])[0]["input_ids"] == expected
    graph = ExportedInputs(bundle / "onnx")
    assert graph.tokenize([TEXT])[0].features["input_ids"] == expected

    adapted = shutil.copytree(bundle, tmp_path / "adapted", ignore=lambda *_: ["merged"])
    adapter = Predictor.load(adapted)
    assert adapter.encode([TEXT])[0]["input_ids"] == expected
    np.testing.assert_allclose(adapter.logits([TEXT]), merged.logits([TEXT]), atol=1e-5)
    for name in ("merged", "adapter", "base_3", "onnx"):
        content = json.loads((bundle / name / "tokenizer.json").read_text())
        assert content["normalizer"]["normalizers"][0]["prepend"] == PREFIX, name

    runtime = choice.find(bundle, "onnx", 1).load()
    found = runtime.logits(runtime.tokenize([TEXT]))
    np.testing.assert_allclose(found, merged.logits([TEXT]), atol=1e-4)


def test_the_record_and_the_card_name_the_prefix(prefixed: Path) -> None:
    bundle = prefixed / "bundle"
    assert json.loads((bundle / "metrics.json").read_text())["training"]["prefix"] == PREFIX
    says = "Its tokenizer puts `exchange rate:` before each of them by itself."
    for folder in (bundle, bundle / "merged", bundle / "adapter"):
        assert says in (folder / layout.CARD).read_text()


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_an_explanation_weighs_the_words_of_the_text_alone(prefixed: Path, name: Any) -> None:
    runtime = choice.find(prefixed / "bundle", name, 1).load()
    explainer = Explainer(prefixed / "bundle", runtime.facts.labels)
    [explanation] = explain([TEXT], runtime, explainer)
    assert [part.word for part in explanation.attributions] == TEXT.split()
    assert [TEXT[part.start : part.end] for part in explanation.attributions] == TEXT.split()

    # Without a word the rest still stands behind the prefix.
    outputs = runtime.outputs(runtime.tokenize([TEXT, TEXT.replace("lost ", "")]))
    decisions = decide(outputs.logits, outputs.features, runtime.policy)
    expected = decisions.probabilities[1, decisions.of(0).label]
    without = explanation.attributions[1].score_without
    assert without == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(("prefix", "effective"), [(None, PREFIX), ("card: ", "card: ")])
def test_going_on_from_a_bundle_adds_no_second_prefix(
    prefix: str | None, effective: str, prefixed: Path, tmp_path: Path, run: Run
) -> None:
    from bankintent.inference.predictor import Predictor

    config = train_config(
        tmp_path / "train.yaml",
        prefixed / "bundle",
        prefixed / "data",
        tmp_path / "bundle",
        epochs=1,
        prefix=prefix,
    )
    result = run(multiregime.main, "--config", config, "--regime", "full-ft")
    assert result.code == 0, result.err
    ends = "goes on to" if prefix is None else "it is 'card: ' now"
    assert f"'{PREFIX}' before every text" in result.out
    assert ends in " ".join(result.out.split())
    tokens = Predictor.load(tmp_path / "bundle").encode([TEXT])[0]["input_ids"]
    assert tokens == ids_of(bert_tokenizer(), effective + TEXT)
    record = json.loads((tmp_path / "bundle" / "metrics.json").read_text())
    assert record["training"]["prefix"] == effective


def test_a_run_with_another_prefix_is_not_taken_for_a_finished_one(
    prefixed: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(prefixed, tmp_path / "again")
    monkeypatch.chdir(folder)
    command = ("--config", folder / "train.yaml", "--regime", "lora")
    same = run(multiregime.main, *command)
    assert "already trained with these settings" in same.out, same.err
    other = run(multiregime.main, *command, "--set", 'prefix="card: "')
    assert "prefix is exchange rate: , now card: " in other.one_line_error()
