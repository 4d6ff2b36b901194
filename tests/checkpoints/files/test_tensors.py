"""Tensors come out of each format as they went in; what does not fit is an error."""

import errno
import json
import os
import tracemalloc
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitreous.checkpoints.files.tensors import read_tensors, write_tensors
from vitreous.support.errors import InputError

SUFFIXES = [".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt"]
KIND = {".safetensors": "safetensors", ".npz": "npz"}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.int64, torch.int8, torch.uint8, torch.bool]


def some_tensors():
    """Of several dtypes and shapes, also scalar and empty; none is constant."""
    typed = {f"of/{dtype}".replace("torch.", ""): (torch.randn(2, 3) * 9).to(dtype) for dtype in DTYPES}
    return {**typed, "scalar": torch.tensor(2.5), "nothing": torch.zeros(0, 4), "wide": torch.randn(4, 6).T}


def same(read, written):
    assert set(read) == set(written)
    for key, tensor in written.items():
        assert read[key].dtype == tensor.dtype, key
        assert torch.equal(read[key], tensor), key
        assert type(read[key]) is torch.Tensor


def lies_in_file(tensor, path):
    """Whether the tensor's memory is a mapping of the file."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list mappings")
    for line in maps.read_text().splitlines():
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line.endswith(str(path))
    raise AssertionError("the tensor lies in no mapping")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_written_tensors_are_read(suffix, tmp_path):
    tensors = some_tensors()
    write_tensors(tmp_path / f"m{suffix}", tensors)
    with read_tensors(str(tmp_path / f"m{suffix}")) as file:
        assert file.kind == KIND.get(suffix, "pickle")
        assert file.shapes == {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        assert len(file) == len(tensors)
        assert file.ignored == ()
        same(file, tensors)
        kept = file["wide"]
        assert kept.is_contiguous()
    assert torch.equal(kept, tensors["wide"])
    with pytest.raises(ValueError, match="closed"):
        file["wide"]
    assert list(tmp_path.iterdir()) == [tmp_path / f"m{suffix}"]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_a_missing_key_is_a_key_error_without_reading(suffix, tmp_path):
    write_tensors(tmp_path / f"m{suffix}", {"a": torch.ones(2)})
    with read_tensors(tmp_path / f"m{suffix}") as file:
        assert file.get("b") is None
        with pytest.raises(KeyError):
            file["b"]
        file.close()
        assert "a" in file  # reading would raise
        assert "b" not in file


def test_a_file_may_be_empty(tmp_path):
    for suffix in (".safetensors", ".npz", ".pth"):
        write_tensors(tmp_path / f"m{suffix}", {})
        with read_tensors(tmp_path / f"m{suffix}") as file:
            assert dict(file) == {}


def test_the_content_determines_the_format_whatever_the_name(tmp_path):
    for suffix, name in ((".safetensors", "a.bin"), (".npz", "b.pth"), (".pth", "c.npz"), (".npz", "d.weights")):
        write_tensors(tmp_path / f"m{suffix}", {"x": torch.randn(3)})
        (tmp_path / f"m{suffix}").rename(tmp_path / name)
        with read_tensors(tmp_path / name) as file:
            assert file.kind == KIND.get(suffix, "pickle")
            assert len(file) == 1


def test_other_files_are_refused_with_the_valid_suffixes(tmp_path):
    (tmp_path / "m.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    for name in ("m.txt", "m.zip", "missing.pth", "."):
        with pytest.raises(InputError, match=r"\.safetensors, \.npz, \.pth"):
            read_tensors(tmp_path / name)


def test_metadata_is_kept_in_safetensors_and_refused_elsewhere(tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"a": torch.ones(2)}, {"license": "Apache-2.0"})
    with read_tensors(tmp_path / "m.safetensors") as file:
        assert file.metadata == {"format": "pt", "license": "Apache-2.0"}
    for name in ("m.npz", "m.pth"):
        with pytest.raises(InputError, match="cannot hold metadata"):
            write_tensors(tmp_path / name, {"a": torch.ones(2)}, {"license": "Apache-2.0"})


def test_bfloat16_is_kept_or_exact(tmp_path):
    tensor = torch.randn(5).bfloat16()
    for name, dtype in (("m.safetensors", torch.bfloat16), ("m.pth", torch.bfloat16), ("m.npz", torch.float32)):
        write_tensors(tmp_path / name, {"a": tensor})
        with read_tensors(tmp_path / name) as file:
            assert file["a"].dtype == dtype
            assert torch.equal(file["a"].bfloat16(), tensor)


def test_npz_files_of_other_writers(tmp_path):
    """JAX's bfloat16 (two untyped bytes), big-endian numbers, column-major order, compression, a scalar."""
    tensor = torch.randn(3, 4).bfloat16()
    numbers = np.random.default_rng(0).normal(size=(3, 4))
    arrays = {
        "bfloat16": tensor.view(torch.uint16).numpy().view("V2"),
        "big": numbers.astype(">f4"),
        "columns": np.asfortranarray(numbers),
        "scalar": np.float32(1.5),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "m.npz", **arrays)
        with read_tensors(tmp_path / "m.npz") as file:
            assert torch.equal(file["bfloat16"], tensor)
            assert file["bfloat16"].dtype == torch.bfloat16
            assert torch.equal(file["big"], torch.from_numpy(numbers).float())
            assert torch.equal(file["columns"], torch.from_numpy(numbers))
            assert file["scalar"].shape == ()


def test_an_npz_file_is_read_in_the_memory_of_one_array(tmp_path):
    for save in (np.savez, np.savez_compressed):
        arrays = {f"a{i}": np.random.default_rng(i).integers(0, 2**40, 2**19) for i in range(3)}  # 4 MiB each
        save(tmp_path / "m.npz", **arrays)
        total = sum(int(array.sum()) for array in arrays.values())
        del arrays
        with read_tensors(tmp_path / "m.npz") as file:
            tracemalloc.start()
            found = sum(int(file[key].sum()) for key in file)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert found == total
        assert 4 * 2**20 < peak < 7 * 2**20


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_values_are_mapped_on_request_and_writing_to_them_leaves_the_file(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    write_tensors(path, {"a": torch.arange(2.0**14), "b": torch.ones(2)})
    for mapped in (True, False):
        with read_tensors(path, mapped=mapped) as file:
            tensor = file["a"]
            assert lies_in_file(tensor, path) == mapped
            tensor[0] = 7
        assert read_tensors(path)["a"][0] == 0


def test_a_training_checkpoint_is_flattened_and_the_rest_is_listed(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    layer.weight.no_weight_decay = True  # an attribute, which torch pickles differently
    content = {
        "model": OrderedDict(layer.named_parameters()),
        "state": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": Namespace(lr=1e-3, layers=(1, 2), inner=Namespace(x=None)),
        "epoch": 3,
        "milestones": Counter([30]),
        "lists": [torch.ones(1)],
        "empty": {},
        ("a", "tuple"): torch.ones(1),
        "types": {torch.float32, "a"},
    }
    for old in (False, True):
        torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=not old)
        with read_tensors(tmp_path / "m.pth") as file:
            assert torch.equal(file["model/weight"], layer.weight)
            assert not file["model/weight"].requires_grad
            assert type(file["model/weight"]) is torch.Tensor
            assert torch.equal(file["state/bias"], layer.bias)
            assert torch.equal(file["optimizer/state/0/exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
            assert len(file) == 4 + 6
            assert set(file.ignored) == {
                "optimizer/param_groups", "args", "epoch", "milestones/30", "lists", "empty", "tuple", "types"
            }  # fmt: skip
    assert Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("factory", [list, dict, int, float, str, bool, tuple, set, None])
def test_a_default_dict_is_a_dict(factory, tmp_path):
    content = defaultdict(factory, {"w": torch.arange(3.0), "loss": [1.0]})
    for old in (False, True):
        torch.save(
            {"log": content, "empty": defaultdict(factory)}, tmp_path / "m.pth", _use_new_zipfile_serialization=not old
        )
        with read_tensors(tmp_path / "m.pth") as file:
            assert torch.equal(file["log/w"], torch.arange(3.0))
            assert set(file.ignored) == {"log/loss", "empty"}
    assert not any("defaultdict" in str(name) for name in torch.serialization.get_safe_globals())


def test_shared_and_cyclic_nesting_is_bounded(tmp_path):
    inner = {"t": torch.ones(2)}
    torch.save({"a": inner, "b": inner}, tmp_path / "m.pth")
    assert set(read_tensors(tmp_path / "m.pth")) == {"a/t", "b/t"}
    cycle = {"t": torch.ones(2)}
    cycle["self"] = cycle
    wide = {"t": 1}
    for _ in range(12):
        wide = {str(i): wide for i in range(10)}  # 10^12 paths
    hollow = {}
    for _ in range(12):
        hollow = {str(i): hollow for i in range(10)}
    for content, reason in (
        (cycle, "deeper than 16"),
        (wide, "100,000"),
        (hollow, "100,000"),
        (7, "not tensors by name"),
    ):
        torch.save(content, tmp_path / "m.pth")
        with pytest.raises(InputError, match=reason):
            read_tensors(tmp_path / "m.pth")
    torch.save({"0": torch.ones(1), 0: torch.ones(2)}, tmp_path / "m.pth")
    with pytest.raises(InputError, match="'0' twice"):
        read_tensors(tmp_path / "m.pth")


def test_tensors_without_plain_numbers_are_refused(tmp_path):
    for tensor in (torch.eye(3).to_sparse(), torch.empty(2, device="meta")):
        torch.save({"a": torch.ones(2), "b": tensor}, tmp_path / "m.pth")
        with pytest.raises(InputError, match="_rebuild_"):
            read_tensors(tmp_path / "m.pth")
        for suffix in (".safetensors", ".npz", ".pth"):
            with pytest.raises(InputError, match="plain tensors"):
                write_tensors(tmp_path / f"n{suffix}", {"b": tensor})
            assert not (tmp_path / f"n{suffix}").exists()


def test_tensors_that_share_memory_are_written_separately(tmp_path):
    table = torch.randn(1000, 4)
    tensors = {"a": table[:3], "b": table[:3], "whole": table[2:5].T, "c": table[1:3]}
    for suffix in (".safetensors", ".npz", ".pth"):
        write_tensors(tmp_path / f"m{suffix}", tensors)
        same(read_tensors(tmp_path / f"m{suffix}"), tensors)
        assert (tmp_path / f"m{suffix}").stat().st_size < 4000


def test_what_a_format_cannot_hold_is_refused_before_a_file_is_written(tmp_path):
    one = torch.ones(1)
    for name, tensors, reason in (
        ("m.pth", {"a": one, "a/b": one}, "'a/b'"),
        ("m.pth", {"a/b": one, "a": one}, "'a'"),
        ("m.pth", {"/".join("abcdefghijklmnopq"): one}, "a/b/c"),
        ("m.safetensors", {"__metadata__": one}, "__metadata__"),
        ("m.npz", {"a": one.to(torch.float8_e4m3fn)}, "Float8"),
        ("m.h5", {"a": one}, r"\.safetensors, \.npz"),
    ):
        with pytest.raises(InputError, match=reason):
            write_tensors(tmp_path / name, tensors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_a_folder_that_is_missing_and_a_disk_that_is_full_are_one_line(suffix, tmp_path, monkeypatch):
    tensors = {"a": torch.ones(100)}
    with pytest.raises(InputError, match="cannot write"):
        write_tensors(tmp_path / "missing" / f"m{suffix}", tensors)
    write_tensors(tmp_path / f"m{suffix}", tensors)
    before = (tmp_path / f"m{suffix}").read_bytes()

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(InputError, match="No space left"):
        write_tensors(tmp_path / f"m{suffix}", tensors)
    monkeypatch.undo()
    if Path("/dev/full").exists() and suffix != ".safetensors":
        with Path("/dev/full").open("wb", buffering=0) as full:
            opened = Path.open
            monkeypatch.setattr(Path, "open", lambda self, mode="r": full if mode == "wb" else opened(self, mode))
            with pytest.raises(InputError, match="cannot write"):
                write_tensors(tmp_path / f"m{suffix}", tensors)
    assert (tmp_path / f"m{suffix}").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / f"m{suffix}"]


def sharded(folder, suffix=".safetensors", edit=lambda index: index):
    """Writes three tensors as two shards with an index; returns its path."""
    parts = {f"m-1{suffix}": {"a": torch.randn(3), "b.c": torch.randn(2)}, f"m-2{suffix}": {"d": torch.randn(1)}}
    for name, tensors in parts.items():
        if suffix == ".safetensors":
            save_file(tensors, folder / name, {"format": "pt"})
        else:
            torch.save(tensors, folder / name)
    index = {"metadata": {"total_size": 24}, "weight_map": {key: name for name, part in parts.items() for key in part}}
    path = folder / ("model.safetensors.index.json" if suffix == ".safetensors" else "pytorch_model.bin.index.json")
    path.write_text(json.dumps(edit(index)))
    return path, {key: tensor for part in parts.values() for key, tensor in part.items()}


def test_shards_are_one_file(tmp_path):
    for suffix in (".safetensors", ".bin"):
        path, tensors = sharded(tmp_path, suffix)
        with read_tensors(path) as file:
            assert file.kind == KIND.get(suffix, "pickle")
            assert list(file) == list(tensors)
            same(file, tensors)
        with pytest.raises(ValueError, match="closed"):
            file["a"]


def test_only_links_within_a_hubs_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    path, tensors = sharded(tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    same(read_tensors(tmp_path / "snapshot" / path.name), tensors)
    (tmp_path / "snapshot" / path.name).unlink()
    (tmp_path / "snapshot" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="links to another folder"):
        read_tensors(tmp_path / "snapshot" / path.name)


def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path):
    places = {"a": "m-1.safetensors", "b.c": "m-1.safetensors", "d": "m-2.safetensors"}
    (tmp_path / "loop.bin").symlink_to(tmp_path / "loop.bin")
    for index, reason in (
        ({"weight_map": {**places, "e": "m-2.safetensors"}}, "'e' is in the index but not in the file"),
        ({"weight_map": {"a": "m-1.safetensors", "d": "m-2.safetensors"}}, r"'b\.c' is in the file but not"),
        ({"weight_map": {**places, "d": "m-1.safetensors"}}, "'d' is in the index"),
        ({"weight_map": {**places, "d": "m-3.safetensors"}}, "there is no file"),
        ({"weight_map": {**places, "d": "loop.bin"}}, "there is no file"),
        ({"weight_map": {**places, "d": "../m-2.safetensors"}}, "names shards that are not weights in its own folder"),
        ({"weight_map": {**places, "d": "/etc/passwd"}}, "names shards"),
        ({"weight_map": {**places, "d": ".."}}, "names shards"),
        (
            {"weight_map": {**places, "d": "model.safetensors.index.json"}},
            "names shards that are not weights in its own folder",
        ),
        ({"weight_map": {**places, "d": 7}}, "names shards"),
        ({"weight_map": {str(i): f"{i}.bin" for i in range(1001)}}, "not an index of 1 to 1,000 shards"),
        ({"weight_map": {}}, "not an index of 1 to 1,000 shards"),
        ({"weight_map": [1]}, "not an index of 1 to"),
        ([], "not a JSON object"),
    ):
        path, _ = sharded(tmp_path, edit=lambda _, index=index: index)
        with pytest.raises(InputError, match=reason):
            read_tensors(path)
    for text in (b"", b"[" * 100_000, b"\xff", b'{"weight_map": {}}' + b" " * 2**24):
        path.write_bytes(text)
        with pytest.raises(InputError, match=r"is not JSON|not a JSON object of at most"):
            read_tensors(path)
