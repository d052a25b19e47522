"""What the miniatures share: the VAE, tokenizers built in code, text encoders."""

import string
from typing import Any

from agd_core.builtin.miniatures.weights import fill

CLIP_TOKENS = 77
T5_TOKENS = 512
_FREQUENT = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic "
    "ne ea ra ce li ch ll be ma si om ur ph og ap gr ho do ca bl ue ki tr sh sk un"
)
_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def vae(name: str, latent_channels: int, **settings: Any) -> Any:
    """An autoencoder that shrinks each side 8 times, as the real ones; `settings` as its config has them."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        latent_channels=latent_channels,
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        **settings,
    )
    return fill(model, f"{name}/vae", {"decoder.conv_out.weight": 0.7})


def clip_tokenizer(pad_token: str = _END) -> Any:
    """A byte-level BPE of all bytes and some frequent pairs; at most 77 tokens, start and end of text included."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    merges = [(pair[0], pair[1] + end) for pair in _FREQUENT.split() for end in (_WORD_END, "")]
    words = [*letters, *(letter + _WORD_END for letter in letters), *map("".join, merges), _START, _END]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,
        pad_token=pad_token,
        model_max_length=CLIP_TOKENS,
    )


def clip_text_encoder(
    name: str, tokenizer: Any, projected: bool = False, width: int = 32, activation: str = "quick_gelu"
) -> Any:
    """A CLIP text model of two layers; `projected` adds the pooled projection of the same width."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_TOKENS,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return fill(kind(config), name, {"position_embedding.weight": 0.3})


def t5_tokenizer() -> Any:
    """A unigram model of all printable characters and some frequent pairs; at most 512 tokens."""
    from transformers import T5Tokenizer

    pieces = [*list(string.ascii_letters + string.digits + string.punctuation), *_FREQUENT.split()]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words = [(word, -3.0 - 3.0 / len(word)) for word in [*pieces, *(f"▁{piece}" for piece in pieces)]]
    return T5Tokenizer(vocab=special + words, model_max_length=T5_TOKENS)


def t5_text_encoder(name: str, tokenizer: Any, width: int) -> Any:
    """A T5 encoder of two layers with gated GELU, as SD3 uses it."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return fill(T5EncoderModel(config), name)
