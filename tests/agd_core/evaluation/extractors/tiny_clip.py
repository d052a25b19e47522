"""A CLIP folder with a tiny configuration, a tokenizer of single letters and RANDOM weights."""

import string

import torch
import transformers

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def write_tiny_clip(path):
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {token: index for index, token in enumerate([*letters, *SPECIAL])}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(path)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": vocabulary[SPECIAL[0]], "eos_token_id": vocabulary[SPECIAL[1]]}
    config = transformers.CLIPConfig(
        text_config={**layers, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 40},
        vision_config={**layers, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.CLIPModel(config).save_pretrained(path)
    return path
