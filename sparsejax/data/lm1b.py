"""lm1b: the One Billion Word Benchmark, sentences of news in English."""

from sparsejax.data import stock_text
from sparsejax.data.pipeline import Dataset


def lm1b(
    *,
    data_dir: str | None = None,
    context: int = 256,
    tokenizer: str = "bpe",
    vocabulary_size: int = 32_768,
    evaluation_documents: int = 10_000,
) -> Dataset:
    """Sentences, packed into rows: 30 million to train on.

    Prepare it with ``python scripts/prepare_data.py lm1b``. Chelba et al., 2013, "One
    billion word benchmark for measuring progress in statistical language modeling".

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      context: Tokens that a network reads at once.
      tokenizer: As for :func:`sparsejax.data.tokenizers.tokenizer_of`.
      vocabulary_size: Of ``tokenizer="bpe"``.
      evaluation_documents: How many sentences of the test split to evaluate on.

    Returns:
      The dataset, as of :func:`sparsejax.data.text.dataset`.

    Raises:
      ConfigError: If no prepared copy is found, or an argument is out of range.
    """
    return stock_text.corpus(
        "lm1b",
        evaluation_split="test",
        data_dir=data_dir,
        context=context,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        evaluation_documents=evaluation_documents,
    )
