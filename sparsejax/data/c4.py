"""C4: text of the web in English, cleaned."""

from sparsejax.data import stock_text
from sparsejax.data.pipeline import Dataset


def c4(
    *,
    data_dir: str | None = None,
    variant: str = "en",
    context: int = 1024,
    tokenizer: str = "bpe",
    vocabulary_size: int = 32_768,
    evaluation_documents: int = 5_000,
) -> Dataset:
    """Documents, packed into rows: 365 million to train on.

    Prepare it with ``python scripts/prepare_data.py c4/en``. Raffel et al., 2020,
    "Exploring the limits of transfer learning with a unified text-to-text transformer".

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      variant: The dataset's config in tfds: ``"en"``, ``"realnewslike"``, ....
      context: Tokens that a network reads at once.
      tokenizer: As for :func:`sparsejax.data.tokenizers.tokenizer_of`.
      vocabulary_size: Of ``tokenizer="bpe"``.
      evaluation_documents: How many documents of the validation split to evaluate on.

    Returns:
      The dataset, as of :func:`sparsejax.data.text.dataset`.

    Raises:
      ConfigError: If no prepared copy is found, or an argument is out of range.
    """
    return stock_text.corpus(
        f"c4/{variant}",
        evaluation_split="validation",
        data_dir=data_dir,
        context=context,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        evaluation_documents=evaluation_documents,
    )
