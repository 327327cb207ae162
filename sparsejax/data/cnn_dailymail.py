"""CNN and Daily Mail: articles and their highlights."""

from sparsejax.data import stock_text
from sparsejax.data.pipeline import Dataset


def cnn_dailymail(
    *,
    data_dir: str | None = None,
    context: int = 1024,
    tokenizer: str = "bpe",
    vocabulary_size: int = 32_768,
    evaluation_pairs: int = 2_000,
) -> Dataset:
    """Articles to summarise: 287,113 to train on.

    Prepare it with ``python scripts/prepare_data.py cnn_dailymail``. See et al., 2017,
    "Get to the point: summarization with pointer-generator networks".

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      context: Tokens that article and highlights have in all; articles are cut.
      tokenizer: As for :func:`sparsejax.data.tokenizers.tokenizer_of`.
      vocabulary_size: Of ``tokenizer="bpe"``.
      evaluation_pairs: How many articles of the validation split to evaluate on.

    Returns:
      The dataset, as of :func:`sparsejax.data.pairs.dataset`.

    Raises:
      ConfigError: If no prepared copy is found, or an argument is out of range.
    """
    return stock_text.translations(
        "cnn_dailymail",
        source="article",
        target="highlights",
        evaluation_split="validation",
        data_dir=data_dir,
        context=context,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        evaluation_pairs=evaluation_pairs,
    )
