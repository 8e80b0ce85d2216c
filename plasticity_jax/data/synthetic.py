"""A data set of patterns of graded complexity, to measure which of them a network has learnt.

Based on the idea of PS10 in You et al. 2019 (arXiv 1908.01878, second version), of which little more is known than that
it separates simple from complex patterns; all numbers here are our choice.

An image has four blocks, each a row of 16 pixels.  Each block has its own code for the classes, with 1, 4, 16 or 64
words per class, random and normally distributed.  The complexity of the code is the log2 of this number: 0, 2, 4 or 6
bits.  In an image one block encodes the class, as a word plus some noise; the others are noise of the same scale.  So
blocks are not redundant, and each has its own test set: `bits0`, `bits2`, `bits4` and `bits6`.  The main test set has
all of them in equal parts.
"""

import numpy as np

CLASSES = 10
WORDS = (1, 4, 16, 64)  # of each class, by block
WIDTH = 16  # pixels of a block
TRAIN, TEST = 20_000, 2_000  # images; TEST is of each block
NOISE = 0.1  # of a word, whose numbers have deviation 1
ZERO, UNIT = 128, 32  # how 0 and 1 are written as a byte
VERSION = "1.0.0"
SEED = 10

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def images() -> tuple[Arrays, dict[str, tuple[int, int]]]:
    """(train images, train labels, test images, test labels), and the test set of each block as a range.

    Images are uint8 [N, 4, 16, 1], labels int64 [N].  The main test set is followed by those of the blocks; all have
    the same size.
    """
    rng = np.random.default_rng(SEED)
    codes = [rng.normal(size=(CLASSES, words, WIDTH)) for words in WORDS]
    blocks = np.arange(len(WORDS))
    train = _drawn(rng, codes, rng.permutation(np.arange(TRAIN) % len(blocks)))
    test = [_drawn(rng, codes, rng.permutation(np.arange(TEST) % len(blocks)))]
    test += [_drawn(rng, codes, np.full(TEST, block)) for block in blocks]
    ranges = {
        f"bits{int(np.log2(words))}": (TEST * (block + 1), TEST * (block + 2)) for block, words in enumerate(WORDS)
    }
    images, labels = (np.concatenate(each) for each in zip(*test, strict=True))
    return (*train, images, labels), ranges


def _drawn(rng: np.random.Generator, codes: list[np.ndarray], shows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; `shows` [N] is the block of each image that shows its class."""
    labels = rng.permutation(np.arange(len(shows)) % CLASSES)
    pixels = rng.normal(size=(len(shows), len(codes), WIDTH))
    for block, code in enumerate(codes):
        here = np.flatnonzero(shows == block)
        words = code[labels[here], rng.integers(code.shape[1], size=len(here))]
        pixels[here, block] = words + NOISE * pixels[here, block]
    return np.clip(np.round(ZERO + UNIT * pixels), 0, 255).astype(np.uint8)[..., None], labels
