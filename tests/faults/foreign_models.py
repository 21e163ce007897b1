"""Models of other people, damaged or odd, opened as a classifier and as a model to train on.

A situation holds where the model is refused with one line of a UserError, or where it answers as
the whole model does: alone, among other texts, and in the runtime of the server.
"""

import copy
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import rows, tiny_config, tiny_encoder, tiny_tokenizer

from faults.tally import Tally

Change = Callable[[Path], object]

NAMES = ("card_lost", "Exchange", "top_up", "pin", "10", "9")
TEXTS = [
    *(text for text, _ in rows(4)),
    "rate",
    "i want to add funds to the account with the card that i lost today",
]
JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Situation:
    """A change of a model's folder."""

    name: str
    change: Change
    answers_stay: bool = True
    """Whether a model that is not refused must answer as before; a random change may make another
    model, whose answers must still not depend on their neighbours."""
    verdict: str = ""
    """`refused` where a classifier's answers would be no probabilities of its labels, `opened`
    where a model is as it should be; otherwise it may be either."""


# --- the whole models ---


def write_classifier(folder: Path, architecture: str = "bert", **more: Any) -> Path:
    """A random classifier of NAMES whose answers differ from text to text, as its Trainer saved it."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = tiny_tokenizer(model_max_length=64)
    names: dict[str, Any] = {"id2label": dict(enumerate(NAMES))}
    names["label2id"] = {name: index for index, name in enumerate(NAMES)}
    settings = names | more
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 66}
        special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        size = {"vocab_size": len(tokenizer)}
        config = AutoConfig.for_model("gpt2", **sizes, **special, **size, **settings)
    elif architecture == "xlnet":
        sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "pad_token_id": 0}
        config = AutoConfig.for_model("xlnet", vocab_size=len(tokenizer), **sizes, **settings)
        tokenizer.padding_side = "left"
    else:
        config = tiny_config(architecture, tokenizer, **settings)

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_decoder(folder: Path) -> Path:
    """A random decoder without a classifier; its tokenizer pads."""
    from transformers import AutoModelForSequenceClassification

    write_classifier(folder, "gpt2")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.base_model.save_pretrained(folder)
    return folder


# --- changes ---


def edit(file: str, **values: Any) -> Change:
    """Set keys of a JSON file; the value `None` takes a key out."""

    def change(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text())
        for key, value in values.items():
            content.pop(key, None)
            if value is not None:
                content[key] = value
        path.write_text(json.dumps(content))

    return change


config = functools.partial(edit, "config.json")
tokenizer_config = functools.partial(edit, "tokenizer_config.json")


def names(*values: Any) -> Change:
    """Names for the ids from 0 on, `label2id` to match."""
    ids = {str(value): index for index, value in enumerate(values)}
    return config(id2label={str(index): value for index, value in enumerate(values)}, label2id=ids)


def label_file(*values: str) -> Change:
    """A labels.json with these names."""

    def change(folder: Path) -> None:
        from bankintent.labels import LabelSchema

        LabelSchema(values).save(folder / "labels.json")

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for step in changes:
            step(folder)

    return change


def write(file: str, content: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content)


def remove(*files: str) -> Change:
    def change(folder: Path) -> None:
        for file in files:
            (folder / file).unlink(missing_ok=True)

    return change


def cut(file: str, share: float) -> Change:
    def change(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(len(content) * share)])

    return change


def make_folder(file: str) -> Change:
    return both(remove(file), lambda folder: (folder / file).mkdir())


def make_dangling(file: str) -> Change:
    return both(remove(file), lambda folder: (folder / file).symlink_to("nowhere"))


def tensors(change_weights: Callable[[dict[str, Any]], object]) -> Change:
    """Change the weights, by their names."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / WEIGHTS)
        change_weights(weights)
        whole = {key: tensor.contiguous().clone() for key, tensor in weights.items()}
        save_file(whole, folder / WEIGHTS, {"format": "pt"})

    return change


def poison(part: str, value: float) -> Change:
    def change_weights(weights: dict[str, Any]) -> None:
        name = next(key for key in weights if part in key)
        weights[name].view(-1)[0] = value

    return tensors(change_weights)


def shrink(part: str) -> Change:
    """Give a weight a row less."""

    def change_weights(weights: dict[str, Any]) -> None:
        name = next(key for key in weights if part in key)
        weights[name] = weights[name][:-1]

    return tensors(change_weights)


def drop(part: str) -> Change:
    def change_weights(weights: dict[str, Any]) -> None:
        for name in [key for key in weights if part in key]:
            del weights[name]

    return tensors(change_weights)


def header(old: bytes, new: bytes) -> Change:
    """Change the header of the weights, at the same length."""

    def change(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        assert len(old) == len(new)
        assert old in content
        (folder / WEIGHTS).write_bytes(content.replace(old, new))

    return change


def shard(rename: Callable[[Path, str], str], keep: bool = True) -> Change:
    """Weights in two shards; `rename` gives the name of the second one in the index."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        keys = sorted(weights)
        weight_map = {}
        for number, file in enumerate(shards):
            part = keys[number::2]
            save_file({key: weights[key] for key in part}, folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(part, file)

        name = rename(folder, shards[1])
        renamed = {key: name if file == shards[1] else file for key, file in weight_map.items()}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": renamed}))
        if not keep:
            (folder / shards[1]).unlink()

    return change


def elsewhere(folder: Path, file: str) -> str:
    """Weights of another model, in the folder beside."""
    from safetensors.torch import load_file, save_file

    other = folder.parent / "elsewhere"
    other.mkdir()
    weights = {key: tensor * -1 for key, tensor in load_file(folder / file).items()}
    save_file(weights, other / file, {"format": "pt"})
    return f"../elsewhere/{file}"


def absolute(folder: Path, file: str) -> str:
    return str((folder / elsewhere(folder, file)).resolve())


def adapter(folder: Path) -> None:
    """An adapter beside the model, for a base that is elsewhere."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    other = folder.parent / "base"
    model.save_pretrained(other)
    settings = LoraConfig(
        task_type="SEQ_CLS",
        init_lora_weights=False,
        target_modules="all-linear",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    trained = get_peft_model(model, settings)
    trained.peft_config["default"].base_model_name_or_path = str(other)
    trained.save_pretrained(folder)


def hub_snapshot(folder: Path) -> None:
    """The files as links into a folder of blobs, as the Hub's cache has them."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../blobs/{number}")


def pad_table(more: int) -> Change:
    """As many more rows of the embedding table, as multiples for fast hardware have them."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file

        size = load_file(folder / WEIGHTS)["bert.embeddings.word_embeddings.weight"].shape[0]
        config(vocab_size=size + more)(folder)
        tensors(functools.partial(_add_rows, more))(folder)

    return change


def _add_rows(more: int, weights: dict[str, Any]) -> None:
    import torch

    name = next(key for key in weights if "word_embeddings" in key)
    weights[name] = torch.cat([weights[name], torch.zeros(more, weights[name].shape[1])])


def extra_tokens(folder: Path) -> None:
    """A tokenizer with more tokens than the model has rows for."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"number{index}" for index in range(5)] + ["lost"])
    tokenizer.save_pretrained(folder)


def without_padding(folder: Path) -> None:
    """A tokenizer without a padding token."""
    config(pad_token_id=None)(folder)
    tokenizer_config(pad_token=None)(folder)
    edit("tokenizer.json", padding=None)(folder)


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def files() -> Iterator[Situation]:
    """Files that are not there, no files, or no longer what they were."""
    for file in (*JSON_FILES, WEIGHTS):
        yield Situation(f"{file} removed", remove(file))
        yield Situation(f"{file} a folder", make_folder(file))
        yield Situation(f"{file} a dangling link", make_dangling(file))
        for share in (0.0, 0.01, 0.5, 0.99):
            yield Situation(f"{file} cut to {share:.0%}", cut(file, share))
        for content in (b"[]", b"null", b"{}", b"3", b'"text"', b"\xff\xfe\x00", b"[" * 100_000):
            yield Situation(f"{file} is {content[:10]!r}", write(file, content))
    yield Situation("no tokenizer files", remove(*TOKENIZER_FILES))
    for content in (b"[]", b"null", b"{", b'{"pad_token": 7}', b'{"pad_token": ["x"]}'):
        file = "special_tokens_map.json"
        yield Situation(f"{file} is {content!r}", write(file, content))
    yield Situation("labels.json is no JSON", write("labels.json", b"{"))
    yield Situation("labels.json is a folder", make_folder("labels.json"))


def weights() -> Iterator[Situation]:
    """Weights that are others, or elsewhere."""
    yield Situation("shards", shard(lambda _, file: file), verdict="opened")
    yield Situation("a shard elsewhere", shard(elsewhere))
    yield Situation("a shard elsewhere, absolute", shard(absolute))
    yield Situation("a shard missing", shard(lambda _, file: file, keep=False))
    yield Situation(
        "a shard without its weights", shard(lambda _, __: "model-00001-of-00002.safetensors")
    )
    for content in (b"[]", b"{}", b"{", b'{"weight_map": []}', b'{"weight_map": {"a": 3}}'):
        broken = both(shard(lambda _, file: file), write(INDEX, content))
        yield Situation(f"the index is {content!r}", broken)
    yield Situation(
        "weights under another name", lambda f: (f / WEIGHTS).rename(f / "x.safetensors")
    )
    yield Situation(
        "transformers_weights elsewhere", config(transformers_weights="../x.safetensors")
    )
    yield Situation("transformers_weights missing", config(transformers_weights="x.safetensors"))
    yield Situation("transformers_weights a number", config(transformers_weights=3))
    yield Situation("an adapter beside", adapter)
    yield Situation("adapter_config.json of nothing", write("adapter_config.json", b"{}"))
    yield Situation("a snapshot of the Hub's cache", hub_snapshot, verdict="opened")
    for part in ("word_embeddings", "layer.1.attention", "LayerNorm", "wte", "h.1.attn"):
        yield Situation(f"NaN in {part}", poison(part, float("nan")))
        yield Situation(f"infinity in {part}", poison(part, float("inf")))
        yield Situation(f"a row less of {part}", shrink(part))
        yield Situation(f"no {part}", drop(part))
    yield Situation("layer 1 missing", drop("layer.1."))
    yield Situation("an unknown dtype", header(b'"F32"', b'"F99"'))
    yield Situation("a dtype of other size", header(b'"F32"', b'"F16"'))
    yield Situation("whole numbers", header(b'"F32"', b'"I32"'))


def settings() -> Iterator[Situation]:
    """Configs that say what is not so."""
    for file in JSON_FILES[::2]:
        auto_map = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
        auto_map |= {"AutoModelForSequenceClassification": "code.Classifier"}
        tokenizers = {"AutoTokenizer": ["code.Slow", None]}
        value = auto_map if file == "config.json" else tokenizers
        code = write("code.py", b"raise SystemExit('foreign code ran')")
        yield Situation(f"remote code in {file}", both(edit(file, auto_map=value), code))
    # What transformers has itself is taken in place of the code; of this type it has nothing.
    unknown = edit("config.json", auto_map=auto_map, model_type="sesame")
    yield Situation("remote code of an unknown model", both(unknown, code))
    yield Situation("an unknown model type", config(model_type="sesame"))
    yield Situation("no model type", config(model_type=None))
    # The weights of the two have the same names.
    yield Situation("another model type", config(model_type="roberta"), False)
    yield Situation("more layers than weights", config(num_hidden_layers=3))
    yield Situation("fewer heads", config(num_attention_heads=5))
    yield Situation("a wider layer", config(hidden_size=48))
    yield Situation("a larger vocabulary", config(vocab_size=5000))
    yield Situation("a smaller vocabulary", config(vocab_size=7))
    yield Situation("a table padded by 7", pad_table(7), verdict="opened")
    yield Situation("a table padded by 127", pad_table(127), verdict="opened")
    yield Situation("a table of another tokenizer", pad_table(1000))
    yield Situation("more tokens than rows", extra_tokens)
    yield Situation("padding on the left", tokenizer_config(padding_side="left"), verdict="opened")
    yield Situation("padding on no side", tokenizer_config(padding_side="top"))
    yield Situation("no padding token", without_padding)
    yield Situation("config without a padding id", config(pad_token_id=None), verdict="opened")
    for number in (3, 7, -1, 10_000):
        yield Situation(f"config pads with {number}", config(pad_token_id=number))
    yield Situation("another padding token", tokenizer_config(pad_token="[MASK]"))
    yield Situation(
        "truncation on the left", tokenizer_config(truncation_side="left"), False, verdict="opened"
    )
    yield Situation("a vocabulary elsewhere", tokenizer_config(tokenizer_file="/x/tokenizer.json"))
    other = tokenizer_config(fast_tokenizer_files=["../elsewhere/tokenizer.4.0.json"])
    yield Situation("a tokenizer elsewhere", other)
    empty = both(remove("tokenizer.json"), tokenizer_config(tokenizer_class="BertTokenizer"))
    yield Situation("a tokenizer class without its vocabulary", empty)
    yield Situation("another tokenizer class", tokenizer_config(tokenizer_class="Sesame"), False)


def labels() -> Iterator[Situation]:
    """Names of labels, the heads that they are for."""
    reverse = NAMES[::-1]
    placeholders = tuple(f"LABEL_{index}" for index in range(len(NAMES)))
    yield Situation("labels.json agrees", label_file(*NAMES), verdict="opened")
    yield Situation("labels.json in another order", label_file(*reverse))
    yield Situation("labels.json with another name", label_file("other", *NAMES[1:]))
    yield Situation("labels.json with fewer names", label_file(*NAMES[1:]))
    yield Situation("placeholders", names(*placeholders))
    yield Situation(
        "placeholders and labels.json",
        both(names(*placeholders), label_file(*NAMES)),
        verdict="opened",
    )
    yield Situation("numbers as names", names(*range(len(NAMES))))
    yield Situation("a name twice", names("card_lost", *NAMES[:-1]))
    yield Situation("an empty name", names("", *NAMES[1:]))
    yield Situation("a blank name", names("  ", *NAMES[1:]))
    yield Situation("a name that is null", names(None, *NAMES[1:]))
    yield Situation(
        "names that differ by a blank", names("Exchange ", *NAMES[1:]), False, verdict="opened"
    )
    yield Situation("a name with a line break", names("card\nlost", *NAMES[1:]), False)
    yield Situation(
        "a name over labels.json, blank", both(names("", *NAMES[1:]), label_file("", *NAMES[1:]))
    )
    yield Situation("a gap in the ids", config(id2label={"0": "a", "1": "b", "3": "c"}))
    yield Situation("one name less", names(*NAMES[:-1]))
    yield Situation("one name more", names(*NAMES, "more"))
    yield Situation("names as a list", config(id2label=list(NAMES)))
    yield Situation("ids that are no numbers", config(id2label={"a": "b", "c": "d"}))
    turned = {name: index for index, name in enumerate(reverse)}
    yield Situation("label2id contradicts", config(label2id=turned), verdict="refused")
    yield Situation("label2id is missing", config(label2id=None), verdict="opened")
    kept = {name: index for index, name in enumerate(placeholders)}
    yield Situation("label2id has placeholders", config(label2id=kept), verdict="opened")
    yield Situation("label2id is a list", config(label2id=["a"]))
    yield Situation("num_labels contradicts", config(num_labels=4), verdict="refused")
    yield Situation("num_labels agrees", config(num_labels=len(NAMES)), verdict="opened")
    for problem in ("multi_label_classification", "regression", "sesame", 3):
        yield Situation(f"problem_type {problem}", config(problem_type=problem), verdict="refused")
    for task in ("MaskedLM", "TokenClassification", "QuestionAnswering"):
        yield Situation(
            f"a model for {task}", config(architectures=[f"BertFor{task}"]), verdict="refused"
        )
    yield Situation("architectures is a number", config(architectures=3))
    yield Situation("no architectures", config(architectures=None), verdict="opened")
    yield Situation("one output", one_output, verdict="refused")


def one_output(folder: Path) -> None:
    names("score")(folder)
    config(problem_type="regression")(folder)

    def change_weights(weights: dict[str, Any]) -> None:
        for name in list(weights):
            if name.startswith(("classifier.", "score.")):
                weights[name] = weights[name][:1]

    tensors(change_weights)(folder)


ODD_VALUES: tuple[Any, ...] = (-1, 0, 1.5, "x", "", [], {}, True, [1, 2], {"a": 1}, 10**6)
SLOW = ("num_hidden_layers", "n_layer")
"""Sizes of which a very large one would only take long."""


def random_values(folder: Path, count: int) -> Iterator[Situation]:
    """Keys of the JSON files with odd values, bytes flipped; seeded."""
    generator = random.Random(0)
    keys = []
    for file in JSON_FILES[::2]:
        keys += [(file, key) for key in json.loads((folder / file).read_text())]
    for _ in range(count // 2):
        file, key = generator.choice(keys)
        value = generator.choice(ODD_VALUES[:-1] if key in SLOW else ODD_VALUES)
        yield Situation(f"{file}: {key} is {value!r}", edit(file, **{key: value}), False)
    for number in range(count // 2):
        file = generator.choice((*JSON_FILES, WEIGHTS))
        yield Situation(f"{file}: bytes flipped, {number}", flip(file, number), False)


def flip(file: str, seed: int) -> Change:
    def change(folder: Path) -> None:
        generator = random.Random(seed)
        content = bytearray((folder / file).read_bytes())
        # Of weights, the header alone: other numbers are another model.
        end = min(len(content), 2000) if file == WEIGHTS else len(content)
        for _ in range(3):
            content[generator.randrange(end)] ^= 1 << generator.randrange(8)
        (folder / file).write_bytes(content)

    return change


# --- what must hold ---


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


Answers = dict[str, np.ndarray]
"""Label -> its probability for each of TEXTS."""


def classified(folder: Path) -> list[Answers]:
    """The answers alone, together, and of the runtime that serves; raises as opening does."""
    from bankintent.inference.choice import find
    from bankintent.inference.predictor import Predictor

    predictor = Predictor.load(folder)
    alone = np.concatenate([predictor.logits([text]) for text in TEXTS])
    together = predictor.logits(TEXTS)
    runtime = find(folder, "auto", threads=1).load()
    served = runtime.logits(runtime.tokenize(TEXTS))
    return [
        dict(zip(names, softmax(logits).T, strict=True))
        for names, logits in (
            (predictor.labels.names, alone),
            (predictor.labels.names, together),
            (runtime.facts.labels, served),
        )
    ]


def encoded(folder: Path) -> list[Answers]:
    """The encoder's vectors alone and together, of a model to train on; raises as loading does."""
    import torch

    from bankintent.inference.predictor import Predictor
    from bankintent.labels import LabelSchema
    from bankintent.training.backbones import load_backbone

    labels = LabelSchema(("one", "three", "two"))
    backbone = load_backbone(str(folder), labels, 32)
    predictor = Predictor(backbone.model, backbone.tokenizer, labels)
    vectors = []
    with torch.inference_mode():
        for size in (1, len(TEXTS)):
            table = np.empty((len(TEXTS), 32))
            for numbers, batch in predictor.batches(TEXTS, size):
                hidden = backbone.model.base_model(**batch)[0]
                mask = batch["attention_mask"].unsqueeze(-1)
                table[numbers] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
            vectors.append({"vector": table})
    return vectors


def fault_of(
    folder: Path,
    read: Callable[[Path], list[Answers]],
    expected: Answers | None,
    verdict: str,
) -> str | None:
    """What came out where a model was neither refused nor answered as it must; None where it held."""
    from bankintent.errors import UserError

    try:
        answers = read(folder)
    except UserError as error:
        if verdict == "opened":
            return f"it is refused: {error}"
        return None if "\n" not in str(error) else "a message of several lines"
    # A boundary: whatever a library raises here would be a traceback.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"

    if verdict == "refused" and read is classified:
        return "it is opened"
    reference = answers[0] if expected is None else expected
    for kind, given in zip(("alone", "together", "served"), answers, strict=False):
        if given.keys() != reference.keys():
            return f"{kind}: other labels, {list(given)}"
        worst = max(float(np.abs(given[name] - reference[name]).max()) for name in reference)
        if not worst <= TOLERANCE:
            return f"{kind}: another answer, by {worst:.3f}"
    return None


def try_all(
    tally: Tally,
    whole: Path,
    title: str,
    read: Callable[[Path], list[Answers]],
    situations: list[Situation],
) -> None:
    """Try each situation on a copy of the whole model."""
    expected = read(whole)[0]
    for situation in situations:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            shutil.copytree(whole, folder)
            try:
                situation.change(folder)
            except (StopIteration, FileNotFoundError, KeyError, AssertionError):
                continue  # this model has no such part
            wanted = copy.copy(expected) if situation.answers_stay else None
            fault = fault_of(folder, read, wanted, situation.verdict)
            tally.add(f"{title}, {situation.name}", fault)


def run(count: int) -> Tally:
    """Try at most `count` situations, spread over all kinds."""
    from bankintent import process

    # Before the libraries are imported: they would report each weight that is missing.
    process.quiet_libraries()
    tally = Tally("foreign_models")
    with tempfile.TemporaryDirectory() as place:
        models = [
            ("a classifier", write_classifier(Path(place) / "bert"), classified),
            ("a decoder", write_classifier(Path(place) / "gpt2", "gpt2"), classified),
            ("an encoder", tiny_encoder("bert", Path(place) / "base"), encoded),
            ("a base decoder", write_decoder(Path(place) / "decoder"), encoded),
        ]
        planned = []
        for title, whole, read in models:
            known = [*files(), *weights(), *settings(), *labels()]
            known += random_values(whole, min(count, 400))
            planned += [(title, whole, read, situation) for situation in known]
        if count < len(planned):
            planned = random.Random(1).sample(planned, count)
        for title, whole, read in models:
            chosen = [situation for name, _, _, situation in planned if name == title]
            try_all(tally, whole, title, read, chosen)
    return tally
