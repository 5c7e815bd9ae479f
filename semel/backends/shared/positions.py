"""The positions that a transformer has for its tokens."""

from semel.backends.models.source import ModelSource
from semel.errors import ModelLoadError


def check_positions(source: ModelSource) -> None:
    """Raises ModelLoadError if a text may have more tokens than the model has positions.

    A GPU reads past the end of the table of positions without an error.
    """
    positions = source.config.get("max_position_embeddings")
    if positions is None or "rope_theta" in source.config or "rope_parameters" in source.config:
        return
    if source.config.get("model_type") in _COUNT_FROM_PAD:
        positions -= int(source.config.get("pad_token_id") or 0) + 1
    max_tokens = source.described.spec.max_tokens
    if max_tokens > positions:
        raise ModelLoadError(
            f"model {source.name!r} has positions for {positions} tokens, but its limit is {max_tokens} tokens: "
            f"add max_tokens = {positions} to its entry in semel.toml"
        )


_COUNT_FROM_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Model types whose first position is the padding id plus one."""
