"""The emoji world's networks at their largest, so that their sizes can be counted."""

from agd_core.pretraining.emoji.tokenizer import VOCABULARY


class LargestTokenizer:
    """What the networks ask of a tokenizer, at the largest size that ours may have."""

    model_max_length, bos_token_id, eos_token_id, pad_token_id = 24, VOCABULARY - 2, VOCABULARY - 1, VOCABULARY - 1

    def __len__(self) -> int:
        return VOCABULARY
