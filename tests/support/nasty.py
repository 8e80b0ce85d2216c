"""Paths that are valid for the file system, but may break programs."""

import os

# Each path is several names that some program on the way may take for something else: a pattern, an address, its own.
PATHS = [
    "seed[1]/[!a]/[",
    "a*b/?/**/{x}",
    "a\\b/\\/'one' \"two\"/ three ",
    "new\nline/tab\t/\x01/\x7f",
    "-dash/--workdir=x/.hidden/..x/dots../...",
    "größe/e\u0301/日本/a,b;c&d|e/k=v",
    "~/~x/a~/#/$HOME/`x`/!",
    "%s/%(x)s/100%",
    "gs:/logs:/s3:x/http:/file:",
    "5/5.replaced/a.orbax-checkpoint-tmp/a.__lock",
    f"{'n' * 255}/{'ü' * 127}",
    os.fsdecode(b"\xff\xfe"),
]
