"""The tiny text side: a byte-pair tokenizer in CLIP's file layout and a small CLIPTextModel."""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from MagicTime.prepare_weights.tiny.world import CATEGORIES, caption, random_scene

MAX_LENGTH = 32  # tokens; the longest caption needs fewer
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(folder, seed):
    """Learn merges from captions; write vocab.json and merges.txt in CLIP's layout."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    corpus = [
        caption(random_scene(rng, tuple(rng.choice(CATEGORIES, 1)), grows=bool(k % 4 == 0)), rng)
        for k in range(4000)
    ]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    learner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=2000, min_frequency=2, show_progress=False, end_of_word_suffix="</w>"
        ),
    )
    merges = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]]
    tokens = letters + [f"{c}</w>" for c in letters] + [a + b for a, b in merges] + [BOS, EOS]
    vocab = {t: i for i, t in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    return load_tokenizer(folder)


def load_tokenizer(folder):
    """Load the CLIPTokenizer of `make_tokenizer`."""
    return CLIPTokenizer.from_pretrained(folder)


def make_text_encoder(tokenizer, seed):
    """Make a small CLIPTextModel with random weights, seeded."""
    torch.manual_seed(seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=64,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_factor=1.0,
        )
    )


def token_ids(tokenizer, texts):
    """Return the token ids of N texts: int64 [N, MAX_LENGTH]."""
    return tokenizer(
        texts, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
