"""Datasets, one file per dataset, and the pipeline that turns them into batches.

Every dataset file has one function of its own name that returns a
:class:`sparsejax.data.pipeline.Dataset`. Examples are read with tensorflow-datasets in
its array_record format and batched with grain; TensorFlow is not needed to read.
"""

from sparsejax.extras import require

require("grain", extra="train")
require("tensorflow_datasets", extra="train")
