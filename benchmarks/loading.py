"""Time and memory to load B/16, next to timm, transformers and torchvision with the same file.

    make loading

A file of random weights is written for each family. Readers take turns, each in a process of its own, and measure from
after their imports until the model is loaded: the seconds, and the rise of the process's memory (including mapped pages
of the file), relative to the size of the file. Both are measured again after the first prediction, since a mapped file
is read on use.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

ROUNDS = 7
CLASSES = 1000


class Case(NamedTuple):
    """One family's file and its readers, ours first."""

    name: str
    file: str  # or folder
    readers: tuple[str, ...]


CASES = (
    Case("timm safetensors", "timm", ("vitreous", "timm")),
    Case("transformers safetensors", "huggingface", ("vitreous", "transformers")),
    Case("Google npz", "google.npz", ("vitreous", "timm npz")),
    Case("torchvision pth", "torchvision.pth", ("vitreous", "torchvision")),
    Case("ours", "model.safetensors", ("vitreous",)),
)


def write(folder: Path) -> None:
    """Writes B/16 with random weights in the format of each family."""
    from vitreous.checkpoints.export import export_model
    from vitreous.checkpoints.store import StoredModel
    from vitreous.data.preprocessing import Preprocessing
    from vitreous.model.initialization import fill_at_random
    from vitreous.model.vit import VisionTransformer

    for gelu in ("exact", "tanh"):
        model = VisionTransformer.from_variant("B/16", num_classes=CLASSES, gelu=gelu)
        fill_at_random(model, 0)
        stored = StoredModel(model, Preprocessing((224, 224)))
        if gelu == "tanh":
            export_model(stored, "google", folder / "google.npz")
            continue
        for to, name in (("timm", "timm"), ("huggingface", "huggingface"), ("torchvision", "torchvision.pth")):
            export_model(stored, to, folder / name)
        export_model(stored, "vitreous", folder / "model.safetensors")


def reader(name: str) -> Callable[[str], torch.nn.Module]:
    """The loading function of a reader in CASES, with its imports done."""
    if name == "vitreous":
        from vitreous.checkpoints.load import load_checkpoint

        return lambda path: load_checkpoint(path).model
    if name == "transformers":
        from transformers import ViTForImageClassification

        return lambda path: ViTForImageClassification.from_pretrained(path)
    if name == "torchvision":
        from torchvision.models import vit_b_16

        def load(path: str) -> torch.nn.Module:
            model = vit_b_16()
            model.load_state_dict(torch.load(path, weights_only=True))
            return model

        return load
    import timm

    if name == "timm":
        return lambda path: timm.create_model(f"local-dir:{path}", pretrained=True)
    return lambda path: timm.create_model("vit_base_patch16_224", checkpoint_path=path)


def memory(field: str) -> int:
    """A field of the process's status, in bytes: VmRSS, or VmHWM for the highest it was."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}; this needs Linux")


def measure(name: str, path: str) -> dict[str, float]:
    """Loads once, in this process: seconds, and the rise of memory in bytes."""
    import time

    torch.set_num_threads(1)
    load = reader(name)
    torch.rand(8, 8) @ torch.rand(8, 8)  # torch's start at first use is not part of loading
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory starts anew
    before, start = memory("VmRSS"), time.perf_counter()
    model = load(path).eval()
    loaded, peak = time.perf_counter(), memory("VmHWM") - before
    with torch.inference_mode():
        model(torch.zeros(1, 3, 224, 224))
    done = time.perf_counter()
    after = memory("VmHWM") - before
    return {"load": loaded - start, "first": done - start, "memory": peak, "memory_first": after}


def size_of(path: Path) -> int:
    """Bytes of a file, or of the weights in a folder."""
    return path.stat().st_size if path.is_file() else (path / "model.safetensors").stat().st_size


def main() -> None:
    """Prints a line for each reader: medians and quartiles of the time, the highest memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        for case in CASES:
            path = folder / case.file
            runs: dict[str, list[dict[str, float]]] = {reader: [] for reader in case.readers}
            for _ in range(ROUNDS):
                for who, found in runs.items():
                    command = [sys.executable, "-m", "benchmarks.loading", who, str(path)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
                    found.append(json.loads(done.stdout.splitlines()[-1]))
            report(case, runs, size_of(path))


def report(case: Case, runs: dict[str, list[dict[str, float]]], size: int) -> None:
    """Prints the measurements of one case."""
    for who, found in runs.items():
        seconds = [run["load"] for run in found]
        low, middle, high = statistics.quantiles(seconds, n=4)
        first = statistics.median(run["first"] for run in found)
        peak, after = (max(run[name] for run in found) / size for name in ("memory", "memory_first"))
        line = f"{case.name:26}{who:14}{middle:6.2f} s ({low:.2f} to {high:.2f}), {peak:.2f} × the file"
        print(f"{line}; with a first image {first:.2f} s, {after:.2f} ×", flush=True)
    if len(runs) > 1:
        ours, theirs = ([run["load"] for run in found] for found in runs.values())
        ratios = sorted(t / o for o, t in zip(ours, theirs, strict=True))
        print(f"{'':26}theirs / ours {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
    else:
        main()
