"""The same training in PyTorch, as a process of its own: a line of JSON comes in, a line of JSON goes out.

    {"do": "about"}                                        -> {"version": .., "threads": .., "device": ..}
    {"do": "build", "depth": .., "width": .., "stem": .., "side": .., "batch": .., "classes": .., "dtype": ..,
     "mode": .., "device": .., "threads": ..}              -> {"parameters": .., "seconds": ..}
    {"do": "train", "mode": .., "steps": ..}               -> {"seconds": .., "loss": ..}

or {"error": line}.  `mode` is `eager` or `compile`; one network of each is kept.

Network, initial values and optimiser are those of `plasticity_jax.models` and Adam at 1e-3.  One normalised batch that
lies in the device's memory is shown again and again, which spares PyTorch the shuffling, gathering and normalising that
the lab's program does.  bfloat16 means autocast.

Run by path, by whichever Python has torch: it imports nothing of this repository.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def network(torch: Any, depth: int, width: int, stem: str, classes: int) -> Any:
    """A residual network, depth 2 for ResNet-18, for images [B, 3, H, W]; stem `cifar` or `imagenet`."""
    nn: Any = torch.nn

    def conv(before: int, after: int, size: int, stride: int = 1) -> list:
        layer = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return [layer, nn.BatchNorm2d(after)]

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int):
            super().__init__()
            first = [*conv(before, after, 3, stride), nn.ReLU(inplace=True)]
            self.main = nn.Sequential(*first, *conv(after, after, 3))
            same = stride == 1 and before == after
            self.short = nn.Identity() if same else nn.Sequential(*conv(before, after, 1, stride))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.relu(self.main(x) + self.short(x))

    layers = [*conv(3, width, 7, 2)] if stem == "imagenet" else [*conv(3, width, 3)]
    layers += [nn.ReLU(inplace=True)] + ([nn.MaxPool2d(3, 2, 1)] if stem == "imagenet" else [])
    before = width
    for k in range(4):
        for block in range(depth):
            layers.append(Block(before, width * 2**k, 2 if k and not block else 1))
            before = width * 2**k
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def build(torch: Any, asked: dict[str, Any]) -> tuple[Callable[[int], float], int]:
    """A function from a number of steps to the last loss, and the number of parameters."""
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    device, low = asked["device"], asked["dtype"] == "bfloat16"
    model = network(torch, *(asked[key] for key in ("depth", "width", "stem", "classes")))
    model = model.to(device, memory_format=torch.channels_last)
    images = torch.randn(asked["batch"], 3, asked["side"], asked["side"], device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, asked["classes"], (asked["batch"],), device=device)
    # Fused: the fastest Adam that PyTorch has, on CPU too.
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if asked["mode"] == "compile" else model

    def train(steps: int) -> float:
        for _ in range(steps):
            adam.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16) if low else contextlib.nullcontext():
                loss = torch.nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            adam.step()
        return loss.item()  # waits for the device

    return train, sum(p.numel() for p in model.parameters())


def answer(torch: Any, asked: dict[str, Any], trains: dict[str, Callable[[int], float]]) -> dict[str, Any]:
    """The answer to one request; `trains` holds the networks that were built, by mode."""
    start = time.perf_counter()
    if asked["do"] == "about":
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        return {"version": torch.__version__, "threads": torch.get_num_threads(), "device": device}
    if asked["do"] == "build":
        trains.pop(asked["mode"], None)  # frees the old network's memory first
        train, parameters = build(torch, asked)
        train(2)
        trains[asked["mode"]] = train
        return {"parameters": parameters, "seconds": time.perf_counter() - start}
    loss = trains[asked["mode"]](asked["steps"])
    return {"seconds": time.perf_counter() - start, "loss": loss}


def _torch() -> tuple[Any, str]:
    """The library and an empty text, or None and why it is missing."""
    try:
        import torch
    except ImportError as error:
        return None, f"PyTorch is missing: {error}"
    return torch, ""


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each line of JSON from stdin until it ends; an exception becomes an `error`."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    for line in sys.stdin:
        try:
            reply = json.dumps(answer(json.loads(line)), allow_nan=False)
        except Exception as error:  # the other side must be told, whatever it is
            reply = json.dumps(
                {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}, allow_nan=False
            )
        channel.write(reply + "\n")
        channel.flush()


def main() -> None:
    """Answer with PyTorch, or with the error that it is missing."""
    torch, missing = _torch()
    trains: dict[str, Callable[[int], float]] = {}
    serve(lambda asked: {"error": missing} if missing else answer(torch, asked, trains))


if __name__ == "__main__":
    main()
