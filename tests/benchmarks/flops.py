"""The arithmetic of a training step, from shapes alone.

A convolution of a k x k kernel from C to O channels with H' x W' results is H' W' k k C O multiply-adds an image, a
dense layer is C O.  Normalisation, ReLU, pooling and the optimiser are not counted.
"""


def multiply_adds(width: int, stem: str, depth: int = 2, side: int = 32, channels: int = 3, classes: int = 10) -> list:
    """Forward multiply-adds for one image, of each convolution of `models.ResNet` and its head, in order."""
    counts = []

    def conv(side: int, size: int, stride: int, before: int, after: int) -> int:
        side = (side + 2 * (size // 2) - size) // stride + 1
        counts.append(side * side * size * size * before * after)
        return side

    side = conv(side, 7, 2, channels, width) if stem == "imagenet" else conv(side, 3, 1, channels, width)
    if stem == "imagenet":
        side = (side - 1) // 2 + 1  # the pooling
    before = width
    for k in range(4):
        after = width * 2**k
        for block in range(depth):
            stride = 2 if k and not block else 1
            if stride > 1 or before != after:
                conv(side, 1, stride, before, after)
            side = conv(side, 3, stride, before, after)
            side = conv(side, 3, 1, after, after)
            before = after
    return [*counts, before * classes]


def training(width: int, stem: str, **shape: int) -> int:
    """Floating point operations of one image forward and backward: 3 x forward, without the first input gradient."""
    counts = multiply_adds(width, stem, **shape)
    return 2 * (3 * sum(counts) - counts[0])
