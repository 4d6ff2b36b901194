"""What a run prints."""

from vitreous.training.run import run_training


def test_an_image_of_one_patch_gets_a_warning(tmp_path, quick, capsys):
    settings = quick | {"variant": "mu/16", "image_size": 16}
    run_training("digits", out=tmp_path / "out", settings=settings | {"depth": 1, "epochs": 1, "warmup_epochs": 0})
    out = capsys.readouterr().out
    assert "warning: one patch covers the whole image" in out
    assert "1 block of width" in out
    assert "1 epoch on cpu" in out


def test_the_lines_without_a_terminal(photos, tmp_path, quick, capsys):
    run_training(photos, out=tmp_path / "out", settings=quick)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("3 classes, 33 images to train, 3 to validate, 12 to test")
    assert (
        "8×8 pixels in 4×4-pixel patches (a grid of 2×2), flipped, batches of 16, 2 epochs on cpu in float32"
        in lines[1]
    )
    assert lines[2].startswith("from scratch, expect roughly ")
    assert [line.split()[:2] for line in lines[3:5]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert lines[5].startswith("test accuracy ")
    assert "95 % interval" in lines[5]
    assert not any("\x1b" in line for line in lines)


def test_quiet_prints_nothing(photos, tmp_path, quick, capsys):
    run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""
