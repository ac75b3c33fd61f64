"""Figures of the paper (Imtiaz et al., ICSE 2023), to stand beside ours."""

from __future__ import annotations

# Table II: composite minus parent in points, by number of layers (1 to 4).
_TABLE_2: dict[tuple[str, str, str], tuple[float, float, float, float]] = {
    ("math_qa", "rolled", "lstm"): (0.13, 0.07, -0.03, 0.20),
    ("math_qa", "rolled", "gru"): (0.10, 0.10, 0.10, -0.07),
    ("math_qa", "rolled", "rnn"): (-0.30, -0.67, -0.64, -1.01),
    ("clinc_oos", "rolled", "lstm"): (-0.13, -0.44, -1.40, -0.44),
    ("clinc_oos", "rolled", "gru"): (-0.20, 0.22, -0.22, -0.47),
    ("clinc_oos", "rolled", "rnn"): (-1.58, -5.51, -2.27, -2.40),
    ("clinc_oos", "unrolled", "lstm"): (0.96, 0.51, 0.07, -0.67),
    ("clinc_oos", "unrolled", "gru"): (0.09, 0.00, -0.09, -0.69),
    ("clinc_oos", "unrolled", "rnn"): (-0.07, -1.38, -0.87, -0.11),
    ("wiki_toxicity", "rolled", "lstm"): (-14.73, -14.98, -94.59, -80.78),
    ("wiki_toxicity", "rolled", "gru"): (-0.49, -1.82, -6.05, -1.02),
    ("wiki_toxicity", "rolled", "rnn"): (-15.21, -14.96, -15.15, -15.28),
    ("wiki_toxicity", "unrolled", "lstm"): (-0.01, 0.05, 0.17, 0.44),
    ("wiki_toxicity", "unrolled", "gru"): (-0.27, -0.76, 0.04, -0.14),
    ("wiki_toxicity", "unrolled", "rnn"): (-0.97, -1.48, -0.36, -2.78),
    ("brown_pos", "rolled", "lstm"): (-77.07, -76.56, -80.55, -84.63),
    ("brown_pos", "rolled", "gru"): (-75.28, -75.48, -78.04, -78.11),
    ("brown_pos", "rolled", "rnn"): (-80.13, -80.18, -79.93, -79.93),
    ("brown_pos", "unrolled", "lstm"): (-0.52, -0.22, -2.04, -2.84),
    ("brown_pos", "unrolled", "gru"): (-0.02, -0.77, -0.52, -2.59),
    ("brown_pos", "unrolled", "rnn"): (-1.02, -1.64, -2.90, -3.37),
    ("tatoeba/fr", "rolled", "lstm"): (0.02, 0.18, -0.45, -0.49),
    ("tatoeba/fr", "rolled", "gru"): (0.25, -0.06, 0.02, -0.05),
    ("tatoeba/fr", "rolled", "rnn"): (0.13, 0.16, -0.68, -1.04),
    ("tatoeba/de", "rolled", "lstm"): (0.05, 0.06, -0.07, -0.15),
    ("tatoeba/de", "rolled", "gru"): (-0.16, 0.03, 0.01, 2.01),
    ("tatoeba/de", "rolled", "rnn"): (-0.02, -0.48, -0.56, -0.28),
    ("tatoeba/it", "rolled", "lstm"): (0.00, 0.22, 0.08, -0.18),
    ("tatoeba/it", "rolled", "gru"): (0.44, 0.45, 0.99, 0.33),
    ("tatoeba/it", "rolled", "rnn"): (-0.57, -1.60, 2.38, 2.51),
    ("tatoeba/fr", "unrolled", "lstm"): (0.04, 0.31, -0.18, 0.14),
    ("tatoeba/fr", "unrolled", "gru"): (0.44, -0.45, -0.50, -0.11),
    ("tatoeba/fr", "unrolled", "rnn"): (-0.25, 0.25, -0.38, -2.46),
    ("tatoeba/de", "unrolled", "lstm"): (0.01, 0.00, -0.35, -0.35),
    ("tatoeba/de", "unrolled", "gru"): (0.15, -0.17, -0.65, -0.02),
    ("tatoeba/de", "unrolled", "rnn"): (-0.85, -0.26, -3.00, -0.34),
    ("tatoeba/it", "unrolled", "lstm"): (-0.10, 0.12, -0.03, -0.25),
    ("tatoeba/it", "unrolled", "gru"): (-0.51, -0.26, -0.26, -0.50),
    ("tatoeba/it", "unrolled", "rnn"): (0.76, -0.52, 3.59, -0.48),
}

# Tables III and IV: means over the cells' pairs; LSTM, GRU, vanilla.
REUSE = {
    "math_qa": (-0.07, -0.03, -0.05),
    "clinc_oos": (-0.82, -0.73, -0.53),
    "wiki_toxicity": (-2.20, -5.49, 0.38),
    "brown_pos": (-0.50, 0.42, 0.01),
    "tatoeba": (5.20, 3.83, 4.17),
    "one-to-one with one-to-many": (-2.49, -7.93, -8.23),
    "many-to-one with many-to-many": (-2.92, -3.28, -3.55),
}
REPLACE = {
    "math_qa": (0.52, 0.26, -0.55),
    "clinc_oos": (-0.30, -0.20, -2.57),
    "wiki_toxicity": (-0.74, -0.07, -2.39),
    "brown_pos": (-1.41, -1.81, -4.76),
    "tatoeba": (0.30, 1.72, 0.92),
    "one-to-one by one-to-many": (-4.75, -5.10, -4.08),
    "many-to-one by many-to-many": (-10.48, -6.71, -12.23),
}
# Table V, LSTM, mean BLEU: a retrained model; modules by approach 1; by approach 2.
SCENARIOS = {"tatoeba_uk": (32.12, 31.94, 32.53), "tatoeba_et": (20.80, 20.89, 21.30)}
CELLS = ("lstm", "gru", "rnn")
# Dense networks (Pan & Rajan, ESEC/FSE 2020): means over their networks and data sets.
DENSE = {"rq1": -0.01, "rq2": 0.03, "rq2 across": -5.4}

# Convolutional networks (Pan & Rajan, ICSE 2022), points of top-1, the variant MC-BLN: composite
# minus parent for ResNet-20, 32 and 56; two labels reused within a set, and of two sets; a label
# replaced within a set, and by one of another.
IMAGES = {
    "cifar10": (-0.1, -6.7, -2.2),
    "cifar100": (-0.7, -3.3, -0.8),
    "tiny_imagenet32": (-0.6, -0.3, -1.1),
}
IMAGE_REUSE = {"cifar10": 6.6, "cifar100": -0.67, "tiny_imagenet32": 1.5}
IMAGE_REUSE_ACROSS, IMAGE_REPLACE, IMAGE_REPLACE_ACROSS = -12.7, 0.7, 2.5
RESNETS = ("resnet20", "resnet32", "resnet56")


def _image_reuse(question: str, dataset: str) -> float | None:
    across = " " in dataset
    if question == "rq2":
        return IMAGE_REUSE_ACROSS if across else IMAGE_REUSE.get(dataset)
    return IMAGE_REPLACE_ACROSS if across else IMAGE_REPLACE


def reuse_delta(question: str, dataset: str, cell: str) -> float | None:
    """The papers' modules minus a model trained from scratch, where they have them."""
    if cell in RESNETS:
        return _image_reuse(question, dataset)
    if cell == "fcnn":
        return DENSE.get(question + (" across" if " " in dataset else ""))
    found = {"rq2": REUSE, "rq3": REPLACE}[question].get(dataset)
    return None if found is None or cell not in CELLS else found[CELLS.index(cell)]


def delta(dataset: str, variant: str, cell: str, layers: int) -> float | None:
    """The paper's composite minus parent, where it has one.

    Its CLINC parents answer 150 intents, its toxicity parents lists.
    """
    if cell in RESNETS:
        return IMAGES[dataset][RESNETS.index(cell)] if dataset in IMAGES else None
    if cell == "fcnn":
        return DENSE["rq1"]
    found = _TABLE_2.get((dataset.removesuffix("/list").removesuffix("/intent"), variant, cell))
    return None if found is None or not 1 <= layers <= 4 else found[layers - 1]
