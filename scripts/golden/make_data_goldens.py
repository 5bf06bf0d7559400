#!/usr/bin/env python3
"""Makes tests/golden/data/megatron_order.safetensors: numpy's shuffles, and sample orders by Megatron-LM's rule.

An independent statement of the rule, in the words of Megatron-LM's datasets readme, over whole arrays: it shares no
code and no method with the C++ side. The tensor names are described in tests/golden/data/FORMAT.md.

    python3 -m venv /tmp/gold && /tmp/gold/bin/pip install numpy safetensors
    /tmp/gold/bin/python scripts/golden/make_data_goldens.py tests/golden/data

The committed file was made with Python 3.11, numpy 2.4.6.
"""
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# name: document lengths, S, samples wanted, seed
CASES = {
    "one_epoch": ([5, 9, 1, 30, 7, 12, 3], 8, 6, 1234),
    "last_epoch_apart": ([5, 9, 1, 30, 7, 12, 3], 8, 27, 7),  # 67 tokens: 8.25 samples an epoch
    "last_epoch_mixed": ([5, 9, 1, 30, 7, 12, 3], 8, 24, 7),
    "empty_documents": ([0, 4, 0, 0, 17, 2, 0], 5, 11, 99),
    "many": ([int(n) for n in np.random.RandomState(3).randint(1, 60, 100)], 16, 400, 2**31 + 5),
    "long_documents": ([1000, 3, 500], 4, 700, 0),
}
BLENDS = {"even_weights": ([0.25, 0.25, 0.5], 64), "mixed": ([0.14336, 0.00208, 0.5, 0.35456], 3000)}


def epochs_needed(tokens, length, samples):
    epochs = 1
    while (epochs * tokens - 1) // length < samples:
        epochs += 1
    return epochs


def shuffled(random, values):
    random.shuffle(values)
    return values


def sample_order(sizes, length, samples, seed):
    """Token positions [all samples, S + 1], in the order in which they are seen; documents lie one after another."""
    random = np.random.RandomState(seed)
    tokens = sum(sizes)
    epochs = epochs_needed(tokens, length, samples)
    whole = 0 if epochs == 1 else ((epochs - 1) * tokens - 1) // length
    apart = epochs > 1 and samples - whole < int(0.80 * ((tokens - 1) // length))
    documents = np.arange(len(sizes), dtype=np.int32)
    if apart:
        index = np.concatenate([shuffled(random, np.tile(documents, epochs - 1)), shuffled(random, documents.copy())])
    else:
        index = shuffled(random, np.tile(documents, epochs))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    laid_out = np.concatenate([np.arange(starts[d], starts[d + 1]) for d in index])
    n = (epochs * tokens - 1) // length
    order = shuffled(random, np.arange(whole if apart else n, dtype=np.uint32))
    if apart:
        order = np.concatenate([order, shuffled(random, np.arange(whole, n, dtype=np.uint32))])
    windows = np.stack([laid_out[j * length : j * length + length + 1] for j in order.astype(np.int64)])
    return index, order, windows, epochs, apart


def blend(weights, samples):
    drawn, chosen = np.zeros(len(weights)), []
    for i in range(samples):
        lag = np.asarray(weights) * max(i, 1) - drawn
        chosen.append(int(np.argmax(lag)))  # the first of equals
        drawn[chosen[-1]] += 1
    return chosen


def main(folder):
    tensors, metadata = {}, {"cases": " ".join(CASES), "blends": " ".join(BLENDS), "seeds": "0 1234 4294967295"}
    for seed in (0, 1234, 2**32 - 1):
        draws = np.random.RandomState(seed).randint(0, 2**32, 700, dtype=np.uint32)
        tensors[f"mt19937.{seed}"] = draws.view(np.int32)
        for n in (10, 1000):
            tensors[f"shuffle.{seed}.{n}"] = shuffled(np.random.RandomState(seed), np.arange(n, dtype=np.int32))
    for name, (sizes, length, samples, seed) in CASES.items():
        index, order, windows, epochs, apart = sample_order(sizes, length, samples, seed)
        metadata[f"{name}.length"], metadata[f"{name}.samples"] = str(length), str(samples)
        metadata[f"{name}.seed"], metadata[f"{name}.epochs"] = str(seed), str(epochs)
        metadata[f"{name}.apart"] = str(int(apart))
        tensors[f"{name}.sizes"] = np.array(sizes, dtype=np.int32)
        tensors[f"{name}.documents"], tensors[f"{name}.order"] = index, order.astype(np.int32)
        tensors[f"{name}.tokens"] = windows.astype(np.int32)
    for name, (weights, samples) in BLENDS.items():
        tensors[f"blend.{name}.weights"] = np.array(weights)
        tensors[f"blend.{name}.sources"] = np.array(blend(weights, samples), dtype=np.int32)
    save_file(tensors, Path(folder) / "megatron_order.safetensors", metadata)
    print({k: v for k, v in metadata.items() if k.endswith(("epochs", "apart"))})


if __name__ == "__main__":
    main(sys.argv[1])
