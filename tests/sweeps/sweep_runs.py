"""Run directories of a sweep without any training."""

import json


def make_run(folder, *, config, accuracies, finished=True, sparsity=0.9, cost=True):
    """Writes a run that was evaluated every ten steps."""
    folder.mkdir(parents=True)
    rows = [{"step": 5, "kind": "train", "loss": 1.0}] + [
        {"step": 10 * (i + 1), "kind": "evaluation", "accuracy": a, "seconds": 1.0}
        for i, a in enumerate(accuracies)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "config.json").write_text(json.dumps(config))
    if not finished:
        return
    kept = round(1000 * (1 - sparsity))
    counts = {
        "parameters": 1000,
        "active_parameters": kept,
        "sparse_flops": 2 * kept,
        "dense_flops": 2000,
        "stored_bytes": {"dense": 4000, "condensed": 6 * kept},
        "training": {"flops": 6 * kept, "dense_flops": 6000},
    }
    summary = {
        "step": 10 * len(accuracies),
        "final": {"accuracy": accuracies[-1], "seconds": 1.0},
        "sparsity": sparsity,
        "seconds": 3.0,
        "cost": counts if cost else {},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
