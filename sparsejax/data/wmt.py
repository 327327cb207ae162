"""WMT: sentences in two languages."""

from sparsejax.building import ConfigError
from sparsejax.data import stock_text
from sparsejax.data.pipeline import Dataset


def wmt(
    *,
    data_dir: str | None = None,
    year: int = 14,
    pair: str = "de-en",
    source: str = "en",
    context: int = 256,
    tokenizer: str = "bpe",
    vocabulary_size: int = 32_768,
    evaluation_pairs: int = 3_000,
) -> Dataset:
    """Sentences to translate; ``wmt14/de-en`` has 4.5 million to train on.

    Prepare it with ``python scripts/prepare_data.py wmt14_translate/de-en``.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      year: Two digits: 14 to 19.
      pair: Both languages, as in the name in tfds.
      source: The one to translate from.
      context: Tokens that both sentences have in all.
      tokenizer: As for :func:`sparsejax.data.tokenizers.tokenizer_of`.
      vocabulary_size: Of ``tokenizer="bpe"``, learned from both languages.
      evaluation_pairs: How many pairs of the validation split to evaluate on.

    Returns:
      The dataset, as of :func:`sparsejax.data.pairs.dataset`.

    Raises:
      ConfigError: If no prepared copy is found, or an argument is out of range.
    """
    languages = pair.split("-")
    if source not in languages or len(languages) != 2:
        raise ConfigError(
            f"config.data.source = {source!r} is not one of the two languages of "
            f"config.data.pair = {pair!r}."
        )
    [target] = [language for language in languages if language != source]
    return stock_text.translations(
        f"wmt{year}_translate/{pair}",
        source=source,
        target=target,
        evaluation_split="validation",
        data_dir=data_dir,
        context=context,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        evaluation_pairs=evaluation_pairs,
    )
