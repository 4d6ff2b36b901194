"""Malicious files: no pickle runs, nothing crashes, nothing unpacks without bound, nothing is lost silently."""

import gzip
import io
import json
import os
import pickle
import random
import resource
import tarfile
import time
import zipfile
from argparse import Namespace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.checkpoints.files.tensors import read_tensors, write_tensors
from vitreous.support.errors import InputError

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".safetensors", ".npz")
TENSORS = {"m/a": torch.ones(3, 5), "m/b": torch.arange(7.0), "m/c": torch.ones(2).bfloat16(), "s": torch.tensor(2)}


class Call:
    """Pickles as a call, which happens on unpickling."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def calls(marker):
    """Ways to make the file `marker` with a call or two."""
    name = str(marker)
    touch = f"open({name!r}, 'w').close()"
    inner = pickle.dumps(Call(eval, touch))
    yield Call(os.system, f"touch {name}")
    yield Call(eval, touch)
    yield Call(exec, touch)
    yield Call(open, name, "w")
    yield Call(os.mkdir, name)
    yield Call(pickle.loads, inner)
    yield Call(Path.touch, Path(name))
    yield Call(os.popen, f"touch {name}")
    yield Call(torch.save, {}, name)
    yield Call(np.savetxt, name, [1.0])
    yield Call(map, eval, [touch])
    yield Call(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (touch,), None)
    yield Call(torch._utils._rebuild_parameter, Call(eval, touch), False, {})
    yield Call(Namespace, state={"a": Call(eval, touch)})
    yield {"deep": [{"model": ({"a": Call(eval, touch)},)}]}
    yield {"model": {"a": torch.ones(2)}, (Call(eval, touch),): 1}


def raw_pickles(marker):
    """Every way to spell a call in opcodes; Python's pickle runs them all."""
    touch = f"touch {marker}".encode()
    yield b"cos\nsystem\n(S'" + touch + b"'\ntR."
    yield b"\x80\x02cposix\nsystem\n(S'" + touch + b"'\ntR."
    yield b"(S'" + touch + b"'\nios\nsystem\n."
    yield b"\x80\x02(S'" + touch + b"'\nios\nsystem\n."
    yield b"(cos\nsystem\nS'" + touch + b"'\no."
    yield b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch + b"\x85R."
    yield b"\x80\x02\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch + b"\x85R."
    yield b'\x80\x02c__builtin__\neval\n(S\'__import__("os").mkdir("' + str(marker).encode() + b"\")'\ntR."


def zipped(content, root="archive"):
    """A file of torch's with this pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{root}/data.pkl", content)
        archive.writestr(f"{root}/byteorder", "little")
        archive.writestr(f"{root}/data/0", bytes(64))
        archive.writestr(f"{root}/version", "3\n")
    return file.getvalue()


def legacy(content):
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    return b"".join([*head, content, pickle.dumps([], 2)])


def tarred(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def malicious_files(marker):
    """All of these in all kinds of files that can hold a pickle."""
    pickles = list(raw_pickles(marker))
    for content in calls(marker):
        pickles += [pickle.dumps(content, protocol) for protocol in range(6)]
        for old in (False, True):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=not old)
            yield file.getvalue()
    for content in pickles:
        yield from (content, zipped(content), zipped(content, "m.npy"), legacy(content), content + legacy(b"N."))
        yield from (tarred(content), gzip.compress(content))


def test_no_pickle_fires_in_any_file_under_any_name(tmp_path):
    marker = tmp_path / "fired"
    for content in [*raw_pickles(marker), pickle.dumps(Call(eval, f"open({str(marker)!r}, 'w').close()"))]:
        pickle.loads(content)  # they do work
        assert marker.exists()
        os.system(f"rm -r {marker}")
    files = list(malicious_files(marker))
    assert len(files) > 700
    for i, content in enumerate(files):
        path = tmp_path / f"m{SUFFIXES[(i + i // 7) % 7]}"
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            read_tensors(path)
        assert "weights_only" not in str(error.value)
        assert not marker.exists()
        path.unlink()


def test_the_refusal_names_the_object(tmp_path):
    for content, name in (
        (Call(os.system, "true"), f"{os.system.__module__}.system"),
        ({1: Fraction(1, 2)}, "fractions.Fraction"),
    ):
        torch.save({"model": TENSORS, "x": content}, tmp_path / "m.pth")
        with pytest.raises(InputError, match=f"Python objects that weights do not need, such as '{name}"):
            read_tensors(tmp_path / "m.pth")


def test_plain_data_of_others_is_not_built(tmp_path):
    """A numpy scalar takes as much memory as its dtype says, whatever the file's size; a stand-in takes none."""
    scalar, dtype = np.float64(1).__reduce__()[0], np.dtype
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in (
        Call(scalar, Call(dtype, "V2000000000")),
        Call(np.array(0).__reduce__()[0], np.ndarray, (2**40,), Call(dtype, "f8")),
        Call(scalar, Call(dtype, "O"), Call(dtype, "f8")),
        [Call(scalar, Call(dtype, "V200000000")) for _ in range(20)],
        Call(list, "a" * 2**10),
    ):
        for old in (False, True):
            torch.save({"a": torch.ones(2), "x": content}, tmp_path / "m.pth", _use_new_zipfile_serialization=not old)
            with read_tensors(tmp_path / "m.pth") as file:
                assert (set(file), file.ignored) == ({"a"}, ("x",))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18
    assert not any("numpy" in str(name) for name in torch.serialization.get_safe_globals())


def encoding_pickles():
    """Uses of `_codecs.encode` that Python does not write; the first ones would double a text again and again."""
    text, function = b"X\x04\x00\x00\x00abcd", b"c_codecs\nencode\n"
    latin, hexadecimal = b"X\x06\x00\x00\x00latin1", b"X\x03\x00\x00\x00hex"
    start, call = b"\x80\x02]q\x00" + text + b"q\x01" + latin + b"q\x02" + function + b"q\x03", b"\x86R"
    yield start + text + latin + call + b"q\x04h\x03h\x04" + hexadecimal + call + b"."
    yield start + text + hexadecimal + call + b"."
    yield start + b"h\x01h\x02" + call + b"."
    yield start + text + latin + call + b"h\x03h\x01h\x02" + call + b"."
    yield start + text + b"h\x01" + call + b"."
    yield start + text + latin + b"\x87R."
    yield start + b"(h\x01h\x02tR."
    yield start + b"."
    yield b"\x80\x02(" + text + latin + b"i_codecs\nencode\n."


def test_text_is_encoded_only_where_the_file_spells_it(tmp_path):
    bytes_and_more = {"a": torch.ones(2), "x": [b"one", "latin1", b"latin1", np.float64(3), b"\xff" * 300, b"one"]}
    for old in (False, True):
        torch.save(bytes_and_more, tmp_path / "m.pth", _use_new_zipfile_serialization=not old)
        assert read_tensors(tmp_path / "m.pth").ignored == ("x",)
    for content in encoding_pickles():
        for file in (zipped(content), legacy(content)):
            (tmp_path / "m.pth").write_bytes(file)
            with pytest.raises(InputError, match="encodes in an unusual way"):
                read_tensors(tmp_path / "m.pth")


def test_programs_and_files_that_torch_would_not_write_are_refused(tmp_path):
    content = pickle.dumps({"a": 1}, 2)
    for names, compression, reason in (
        (["x/data.pkl", "x/constants.pkl"], zipfile.ZIP_STORED, "TorchScript"),
        (["x/data.pkl"], zipfile.ZIP_DEFLATED, "not written by torch"),
        (["x/data.pkl", "x/DATA.pkl"], zipfile.ZIP_STORED, "not written by torch"),
        (["y/version", "x/data.pkl"], zipfile.ZIP_STORED, "cannot be read"),
    ):
        with zipfile.ZipFile(tmp_path / "m.pth", "w", compression) as archive:
            for name in names:
                archive.writestr(name, content)
        with pytest.raises(InputError, match=reason):
            read_tensors(tmp_path / "m.pth")


def test_an_array_of_objects_is_refused(tmp_path):
    marker = tmp_path / "fired"
    for array in (np.array([Call(os.mkdir, str(marker))], object), np.zeros(2, [("a", "f4"), ("b", object)])):
        np.savez(tmp_path / "m.npz", good=np.ones(2), bad=array)
        with pytest.raises(InputError, match="objects, not numbers"):
            read_tensors(tmp_path / "m.npz")
    for array in (np.array(["text"]), np.zeros(2, "M8[s]"), np.zeros(2, "V4"), np.zeros(2, [("a", "f4")])):
        np.savez(tmp_path / "m.npz", bad=array)
        with pytest.raises(InputError, match="cannot be read"):
            read_tensors(tmp_path / "m.npz")
    assert not marker.exists()


def test_bombs_and_lies_are_refused_before_they_take_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**26, np.uint8))
    with zipfile.ZipFile(tmp_path / "shape.npz", "w") as archive:
        archive.writestr("a.npy", npy((2**40,), b"1234"))
    with zipfile.ZipFile(tmp_path / "negative.npz", "w") as archive:
        archive.writestr("a.npy", npy((-1, -1), b"1234"))
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("a.npy", npy((1,), b"1234"))
        archive.writestr("a", npy((1,), b"5678"))
    for lie in (
        (0, (2**40,), (0,)),
        (0, (2**33,), (1,)),
        (2**62, (4,), (1,)),
        (0, (2**62, 8), (1, 1)),
        (0, (-4,), (1,)),
    ):
        for old in (False, True):
            torch.save(
                {"a": Lying(torch.ones(4), *lie)}, tmp_path / f"{lie}{old}.pth", _use_new_zipfile_serialization=not old
            )
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match=r"unpack|two arrays|cannot be read"):
            read_tensors(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**18  # in KiB: torch may load a library or two, and the test holds 64 MiB


def npy(shape, content):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


class Lying:
    """Pickles as a tensor whose offset, shape and stride exceed its storage."""

    def __init__(self, tensor, *lie):
        self.tensor, self.lie = tensor, lie

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (self.tensor._typed_storage(), *self.lie, False, {})


def mutated(content, generator):
    """One to five flips, cuts, insertions or copies."""
    content = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5])):
        at, how = generator.randrange(len(content)), generator.randrange(6)
        if how < 3:
            content[at] ^= 1 << generator.randrange(8)
        elif how == 3:
            content = content[: max(1, at)]
        elif how == 4:
            content[at : at + generator.randrange(9)] = generator.randbytes(generator.randrange(1, 9))
        else:
            content[at:at] = content[generator.randrange(len(content)) :][: generator.randrange(40)]
    return bytes(content)


def outcome(path, keys):
    """Reads a damaged file: True if it is refused, False if all its keys are there."""
    started = time.perf_counter()
    try:
        with read_tensors(path) as file:
            assert len(file) == len(keys)  # a flipped bit can rename one
            assert [tensor.shape for tensor in file.values()] == list(file.shapes.values())
        return False
    except InputError:
        return True
    finally:
        assert time.perf_counter() - started < 5


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of what damaged pickles seem to use
@pytest.mark.parametrize("spelling", ["m.safetensors", "m.npz", "m.pth", "old.pth", "inner.pth"])
def test_damaged_files_are_refused_or_complete(spelling, tmp_path):
    generator = random.Random(spelling)
    path = tmp_path / spelling
    write_tensors(path, TENSORS)
    content = path.read_bytes()
    if spelling in ("old.pth", "inner.pth"):
        parameter = torch.nn.Parameter(torch.ones(2))
        parameter.attribute = 1
        rest = {"args": Namespace(a=1), "parameter": parameter, "epoch": 3}
        torch.save({**TENSORS, **rest}, path, _use_new_zipfile_serialization=spelling == "inner.pth")
        content = path.read_bytes()
    keys = set(read_tensors(path))
    if spelling == "inner.pth":  # past the checksum, which stops most damage
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        program = next(name for name in entries if name.endswith("/data.pkl"))
        content = entries[program]
    refused = 0
    for _ in range(400):
        damaged = mutated(content, generator)
        if spelling == "inner.pth":
            with zipfile.ZipFile(path, "w") as archive:
                for name, entry in entries.items():
                    archive.writestr(name, damaged if name == program else entry)
        else:
            path.write_bytes(damaged)
        refused += outcome(path, keys)
    assert 0 < refused < 400


def safetensors(header, numbers=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def test_safetensors_headers_that_lie_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path.write_bytes(safetensors({"a": good}))
    assert read_tensors(path)["a"].shape == (2,)
    one, two = {**good, "shape": [1], "data_offsets": [0, 4]}, {**good, "shape": [1], "data_offsets": [4, 8]}
    text = json.dumps(good).encode()
    for content in (
        safetensors({"a": {**good, "shape": [-2]}}),
        safetensors({"a": {**good, "shape": [2**63, 2]}}),
        safetensors({"a": {**good, "shape": [3]}}),
        safetensors({"a": {**good, "dtype": "F33"}}),
        safetensors({"a": {**good, "dtype": None}}),
        safetensors({"a": {**good, "data_offsets": [8, 0]}}),
        safetensors({"a": {**good, "data_offsets": [0, 16]}}),
        safetensors({"a": good, "b": good}),
        safetensors({"a": one, "b": {**two, "data_offsets": [3, 7]}}),
        safetensors({"a": one}),
        safetensors({"a": two}),
        safetensors({"a": good, "__metadata__": {"x": 1}}),
        safetensors(b'{"a": ' + text.replace(b"[2]", b"[NaN]") + b"}"),
        safetensors(b'{"a": ' + text + b"}}"),
        safetensors(b'{"a": ' * 100_000),
        safetensors(b'{"a": ' + json.dumps(one).encode() + b', "a": ' + json.dumps(two).encode() + b"}"),
        safetensors({"a": good})[:-1],
        safetensors({"a": good}) + b"x",
        (2**63).to_bytes(8, "little") + b"{}",
        b"",
        b"{",
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read_tensors(path)
    for header in ({"a": good, "__metadata__": {"x": "y" * 10**7}}, b'{"a": ' + text + b"}" + b" " * 10**7):
        path.write_bytes(safetensors(header))
        assert not outcome(path, {"a"})


def test_no_single_bit_of_an_npz_directory_hides_an_array(tmp_path):
    path = tmp_path / "m.npz"
    write_tensors(path, TENSORS)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    for bit in range(8 * start, 8 * len(content), 3):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        outcome(path, TENSORS)
        content[bit // 8] ^= 1 << bit % 8
