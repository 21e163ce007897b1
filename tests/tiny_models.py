"""Random models of a few thousand weights, saved as the real ones are: encoders, classifiers, a model of NLI.

Nothing heavy is imported before a model is made: processes of servers import this module too.
"""

from pathlib import Path
from typing import Any

ARCHITECTURES = ("bert", "roberta", "distilbert", "deberta-v2", "modernbert", "electra")
NLI_LABELS = ("contradiction", "neutral", "entailment")
MAX_POSITIONS = 66
"""Two more than 64 tokens: RoBERTa counts its positions from the padding token on."""

INTENTS = {
    "card_lost": [
        "i lost my card",
        "my card is gone",
        "card stolen on the train",
        "cannot find my card anywhere",
    ],
    "top_up": [
        "how do i top up",
        "add money to my account",
        "top up with a card",
        "i want to add funds",
    ],
    "Exchange": [
        "what is the exchange rate",
        "change euros to pounds",
        "exchange currency in the app",
        "rate today",
    ],
}


def rows(per_intent: int = 20) -> list[tuple[str, str]]:
    """(text, label) pairs, all different."""
    return [
        (f"{phrases[i % len(phrases)]} number {i}", label)
        for label, phrases in INTENTS.items()
        for i in range(per_intent)
    ]


def tiny_tokenizer(texts: list[str] | None = None, **options: Any) -> Any:
    """WordPiece of every word of `texts` (by default those of `rows`) and of its characters.

    The special tokens are those that every architecture here can use. A trained vocabulary would
    be another in every process: the trainer breaks ties at random.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer()
    splitter = pre_tokenizers.BertPreTokenizer()
    if texts is None:
        texts = [text for text, _ in rows()]

    words: set[str] = set()
    for text in texts:
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        words |= {word for word, _ in pieces}
    characters = {character for word in words for character in word}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words | characters)]
    vocabulary += sorted("##" + character for character in characters)

    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
        **options,
    )


def byte_level_tokenizer(**options: Any) -> Any:
    """Byte-level BPE without merges: every byte is a token, so no difference of two texts is lost."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", *sorted(splitter.alphabet())]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges=[]))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
        **options,
    )


def tiny_config(architecture: str, tokenizer: Any, **more: Any) -> Any:
    """The config of a model of two layers and 32 hidden units."""
    from transformers import AutoConfig

    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    if architecture == "distilbert":
        names = ("dim", "n_layers", "n_heads", "hidden_dim")
    settings: dict[str, Any] = dict(zip(names, (32, 2, 4, 48), strict=True))
    settings |= {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": 0,
    }

    match architecture:
        case "deberta-v2":
            settings |= {
                "relative_attention": True,
                "position_buckets": 8,
                "pos_att_type": ["p2c", "c2p"],
                "share_att_key": True,
                "norm_rel_ebd": "layer_norm",
                "type_vocab_size": 0,
                "position_biased_input": False,
            }
        case "electra":
            settings |= {"embedding_size": 16}
        case "modernbert":
            settings |= {"cls_token_id": 2, "sep_token_id": 3}
            settings |= {"bos_token_id": 2, "eos_token_id": 3}
    return AutoConfig.for_model(architecture, **(settings | more))


def tiny_encoder(architecture: str, folder: Path, seed: int = 0, **more: Any) -> Path:
    """Save a random encoder (no classification head) as its pretrained checkpoint would be."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    AutoModel.from_config(tiny_config(architecture, tokenizer, **more)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_nli(
    folder: Path, architecture: str = "bert", labels: tuple[str, ...] = NLI_LABELS
) -> Path:
    """Save a random model of natural language inference whose answers differ from pair to pair."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    names: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if architecture == "bart":
        config = AutoConfig.for_model(
            "bart",
            vocab_size=len(tokenizer),
            max_position_embeddings=MAX_POSITIONS,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            init_std=0.5,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=3,
            **names,
        )
    else:
        config = tiny_config(architecture, tokenizer, initializer_range=0.5, **names)

    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
