"""docs/scale.md: its tables are what the formulas give, and its scripts run."""

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from docs import scale_tables
from docs.scale_tables import LINKS, MODELS, efficiency, hiding_images, shape_of, traffic
from tests.docs.test_documents import rows
from tests.test_repository import launched, unknown_words
from vitreous.data.sources.open import open_data
from vitreous.model.cost import parameter_count
from vitreous.model.variants import variant
from vitreous.training.parallel.memory import block_bytes

TEXT = scale_tables.PAGE.read_text(encoding="utf-8")
PATIENCE = 60  # seconds


def script(name: str) -> str:
    """The script between the marks of the document."""
    [content] = re.findall(rf"<!-- {name} -->\n```\w+\n(.*?)```\n<!-- /{name} -->", TEXT, re.DOTALL)
    return content


# ---- tables


def test_every_table_is_what_the_formulas_give():
    assert scale_tables.renewed(TEXT) == TEXT, "run `make pages`, and read what has changed"


def test_a_wrong_number_and_a_missing_table_are_found():
    [line] = [line for line in TEXT.splitlines() if line.startswith("| L/16 | 304,326,632 |")]
    assert scale_tables.renewed(TEXT.replace(line, line.replace("2.13", "2.14"))) == TEXT
    with pytest.raises(ValueError, match="no <!-- state -->"):
        scale_tables.renewed(TEXT.replace("<!-- state -->", ""))


def test_the_bytes_of_an_update_by_hand():
    for name, parameters, eight, many, *_ in rows("docs/scale.md", "bytes"):
        count = parameter_count(variant(name))
        assert parameters == f"{count:,}"
        assert float(eight) == pytest.approx(7 * count / 1e9, abs=0.005)
        assert float(many) == pytest.approx(2 * 63 / 64 * 4 * count / 1e9, abs=0.005)


def test_fsdp_in_16_bits_sends_what_ddp_sends_and_in_float32_half_more():
    ddp, half, whole = traffic("ddp", 8, 1000), traffic("fsdp", 8, 1000), traffic("fsdp", 8, 1000, half=False)
    assert (ddp.total, half.total, whole.total) == (7000, 7000, 10500)
    assert traffic("ddp", 1, 1000).total == traffic("fsdp", 1, 1000).total == 0


@pytest.mark.parametrize("kind", scale_tables.KINDS)
@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
def test_the_images_that_hide_communication_are_the_fewest(kind: scale_tables.Kind, link: scale_tables.Link):
    for name in MODELS:
        images = hiding_images(kind, link, name)
        assert efficiency(kind, link, name, images) == pytest.approx(1)
        assert efficiency(kind, link, name, images - 1) < 1


def test_the_formula_of_a_block_in_the_text():
    shape = shape_of(variant("B/16"))
    t, d, m, k = shape.tokens, shape.width, shape.mlp_dim, shape.num_heads
    formulas = [
        (True, "T (20 D + 4 M + 4 k + 16)", t * (20 * d + 4 * m + 4 * k + 16)),
        (False, "T (32 D + 8 M + 4 k + 16)", t * (32 * d + 8 * m + 4 * k + 16)),
    ]
    for half, formula, each in formulas:
        assert formula in " ".join(TEXT.split())
        assert block_bytes(shape, t, half, dropout=False) == each


# ---- scripts


def test_the_shards_are_read_as_they_were(tmp_path):
    source, target = tmp_path / "classes", tmp_path / "shards"
    source.mkdir()
    colors = {"n01": (250, 0, 0), "n02": (0, 250, 0), "n03": (0, 0, 250)}
    for name, color in colors.items():
        with tarfile.open(source / f"{name}.tar", "w") as archive:
            for number in range(4):
                picture = io.BytesIO()
                Image.new("RGB", (32, 32), color).save(picture, "JPEG")
                member = tarfile.TarInfo(f"{name}_{number}.JPEG")
                member.size = picture.tell()
                archive.addfile(member, io.BytesIO(picture.getvalue()))
    (tmp_path / "make_shards.py").write_text(script("make_shards"))
    command = [sys.executable, "make_shards.py", "classes", "shards", "5"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=PATIENCE)
    assert sorted(path.name for path in target.iterdir()) == [f"train-0000{i}.tar" for i in range(3)]
    data = open_data(str(target))
    assert data.class_names == tuple(colors)
    assert sum(len(split) for split in data.splits) == 12
    for split in data.splits:
        for number, label in enumerate(split.labels.tolist()):
            picture = split.load(number)
            assert list(colors.values())[label] == pytest.approx(picture.getpixel((16, 16)), abs=4)


# Slurm's programs: srun writes its words and runs until SIGTERM, as torchrun would, or ends by itself at once.
PROGRAMS = {
    "srun": """
printf '%s\\n' "$@" > words
trap 'kill $sleep; exit 1' TERM
echo $$ > step
[ -z "$ENDS" ] || exit "$ENDS"
sleep 60 & sleep=$!
wait
""",
    "scancel": '[ "$*" = "--signal=TERM 7" ] && kill -TERM "$(cat step)"',
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "$*" > requeued; fi',
}


@pytest.fixture
def job(tmp_path) -> Path:
    """A folder with the script and Slurm's programs."""
    (tmp_path / "train.sbatch").write_text(script("slurm"))
    for name, content in PROGRAMS.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def start(job: Path, ends: str = "") -> subprocess.Popen[bytes]:
    """The script as Slurm starts it."""
    slurm = {"JOB_ID": "7", "JOB_NODELIST": "node[1-2]", "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "96"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"PATH": f"{job / 'bin'}:{os.environ['PATH']}", "ENDS": ends}
    return subprocess.Popen(["bash", "train.sbatch"], cwd=job, env=environment)


def words_of(job: Path) -> list[str]:
    """The command line of srun, when it runs."""
    end = time.monotonic() + PATIENCE
    while not (job / "step").exists():
        assert time.monotonic() < end, "srun was not started"
        time.sleep(0.02)
    return ["srun", *(job / "words").read_text().splitlines()]


def test_before_the_time_is_up_the_job_stops_and_goes_back_to_the_queue(job):
    process = start(job)
    words = words_of(job)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=PATIENCE) == 1
    assert (job / "requeued").read_text() == "requeue 7\n"
    assert "--rdzv-endpoint=node1:29500" in words
    assert "--nnodes=2" in words
    assert "--rdzv-id=7-0" in words


@pytest.mark.parametrize("code", ["0", "2"])
def test_a_job_that_ends_by_itself_is_not_queued_again(job, code):
    assert start(job, ends=code).wait(timeout=PATIENCE) == int(code)
    assert not (job / "requeued").exists()


def test_the_first_job_starts_a_run_and_the_next_ones_go_on(job):
    start(job, ends="0").wait(timeout=PATIENCE)
    first = words_of(job)
    assert launched(first)[:3] == ["vitreous", "train", "shards/"]
    assert launched(first)[-2:] == ["--out", "runs/in21k"]
    (job / "runs/in21k").mkdir(parents=True)
    (job / "runs/in21k/recipe.toml").touch()
    start(job, ends="0").wait(timeout=PATIENCE)
    following = words_of(job)
    assert launched(following) == ["vitreous", "train", "--resume", "runs/in21k"]
    assert unknown_words(first) == unknown_words(following) == []
