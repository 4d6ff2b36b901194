"""Build it yourself: the solution passes, the blank file is blank, and the usual mistakes are named."""

import ast
import re
from pathlib import Path

import pytest
import torch

from examples.build_it_yourself import make
from examples.build_it_yourself.__main__ import main
from examples.build_it_yourself.boxes import BOXES
from examples.build_it_yourself.check import check_box, check_steps
from examples.build_it_yourself.digits import EPOCHS, check_training
from examples.build_it_yourself.learner import Fault, Learner
from examples.build_it_yourself.steps import BLANKS, STEPS

ROOT = Path(__file__).parents[2]
SOLUTION = make.solution()
EXERCISE = make.exercise(SOLUTION)

# A mistake: its step, the part of the solution that is replaced, the replacement, and words of the message.
MISTAKES = {
    "patch with channels last": (1, "0, 2, 4, 1, 3, 5", "0, 2, 4, 3, 5, 1", "as (height, width, channel)"),
    "columns first": (1, "0, 2, 4, 1, 3, 5", "0, 4, 2, 1, 3, 5", "column by column"),
    "no axes moved": (
        *(1, "x = x.permute(0, 2, 4, 1, 3, 5)", "x = images.reshape(batch, height // size, -1, channels, size, size)"),
        "without moving axes",
    ),
    "kernel too small": (1, "3 * patch_size**2", "patch_size**2", "weight is 24 × 16; it should be 24 × 48"),
    "no return": (1, "return self.projection", "self.projection", "PatchEmbedding.forward returned None"),
    "no projection": (1, "self.projection = nn.Linear", "nn.Linear", "PatchEmbedding.__init__ does not make: proj"),
    "one batch only": (1, "images.reshape(batch, ", "images.reshape(2, ", "mine.py:24: RuntimeError: shape '[2, 3, 4"),
    "no super": (4, "super().__init__()", "pass", "AttributeError: cannot assign module before"),
    "no positions": (2, "x = self.position_embedding(x)", "pass", "never calls self.position_embedding"),
    "positions not added": (2, "return x + self.embedding", "return x", "adds no positions"),
    "positions without return": (2, "return x + self.embedding", "x + self.embedding", "PositionEmbedding.forward ret"),
    "positions of patches": (2, "patches + 1", "patches", "embedding is 1 × 16 × 24; it should be 1 × 17 × 24"),
    "class token last": (
        *(2, "[self.class_token.expand(len(x), -1, -1), x]", "[x, self.class_token.expand(len(x), -1, -1)]"),
        "puts the class token after the patches",
    ),
    "class token forgotten": (2, "x = torch.cat(", "torch.cat(", "token to the patches first"),
    "class token of one image": (2, ".expand(len(x), -1, -1)", "", "RuntimeError: Sizes of tensors must match"),
    "class token not learned": (
        *(2, "nn.Parameter(torch.zeros(1, 1, width))", "torch.zeros(1, 1, width)"),
        "self.class_token is a plain tensor",
    ),
    "no scale": (3, " / math.sqrt(q.shape[-1])", "", "does not divide q kᵀ by √D_h"),
    "scale of the width": (3, "sqrt(q.shape[-1])", "sqrt(x.shape[-1])", "divides q kᵀ by √D, the full width"),
    "softmax over queries": (3, "softmax(dim=-1)", "softmax(dim=-2)", "takes the softmax over the queries"),
    "heads not moved back": (
        3,
        "heads.transpose(1, 2).flatten(2)",
        "heads.reshape(x.shape)",
        "joins the heads without",
    ),
    "order of q, k, v": (3, "q, k, v = (", "v, k, q = (", "in the order v, k, q"),
    "another name": (3, "self.qkv", "self.joint", "has parameters with other names: joint.weight (72 × 24)"),
    "an array": (3, "return self.out(", "return self.out.weight.detach().numpy() or (", "ValueError: The truth value"),
    "tokens last": (3, "flatten(2))  # joined", "flatten(2)).mT  # joined", "the same in another layout"),
    "ReLU": (4, 'nn.GELU(approximate="tanh")', "nn.ReLU()", "uses ReLU in the MLP"),
    "exact GELU": (4, 'nn.GELU(approximate="tanh")', "nn.GELU()", "uses the exact GELU in the MLP"),
    "no activation": (4, "self.activation(self.fc1(x))", "self.fc1(x)", "uses no activation in the MLP"),
    "post-norm": (
        5,
        "x = x + self.attention(self.attention_norm(x))  # z'_l, equation 2\n"
        "        return x + self.mlp(self.mlp_norm(x))",
        "x = self.attention_norm(x + self.attention(x))\n        return self.mlp_norm(x + self.mlp(x))",
        "normalizes after each sum (post-norm)",
    ),
    "no first skip": (
        5,
        "x = x + self.attention(",
        "x = self.attention(",
        "no skip connection (residual) around the att",
    ),
    "no second skip": (5, "return x + self.mlp(", "return self.mlp(", "no skip connection (residual) around the MLP"),
    "in place": (5, "x = x + self.attention(", "x += self.attention(", "changes its input"),
    "another eps": (
        *(5, "self.mlp_norm = nn.LayerNorm(width, eps=1e-6)", "self.mlp_norm = nn.LayerNorm(width)"),
        "mlp_norm has eps = 1e-05: write nn.LayerNorm(width, eps=1e-06)",
    ),
    "no final norm": (6, "return self.norm(self.blocks(x))", "return self.blocks(x)", "no norm after the last block"),
    "one token": (
        6,
        "self.norm(self.blocks(x))",
        "self.norm(self.blocks(x))[:, 0]",
        "2×7×24 in the reference, 2×24 in",
    ),
    "one block again and again": (
        *(6, "*(EncoderBlock(width, num_heads, mlp_dim) for _ in range(depth))"),
        "*([EncoderBlock(width, num_heads, mlp_dim)] * depth)",
        "are the same weights",
    ),
    "a plain list": (6, "nn.Sequential(*(Enc", "list((Enc", "self.blocks is a plain list"),
    "mean of the tokens": (7, "(x)[:, 0]", "(x).mean(dim=1)", "gives the mean of all tokens to the classifier"),
    "a patch is read": (7, "(x)[:, 0]", "(x)[:, -1]", "reads the last token, which is a patch"),
    "softmax": (7, '["classifier"](y)', '["classifier"](y).softmax(-1)', "returns the softmax of the logits"),
    "head without names": (
        *(7, 'nn.ModuleDict({"classifier": nn.Linear(width, num_classes)})', "nn.Linear(width, num_classes)"),
        "does not make: head.classifier.weight (5 × 24)",
    ),
}
UNTRAINED = {
    "no backward": ("loss.backward()", "pass", "call backward() on the loss"),
    "no step": ("optimizer.step()", "pass", "call the optimizer's step()"),
    "another model's parameters": ("model.parameters()", "nn.Linear(2, 2).parameters()", "model.parameters()"),
    "the head alone": ("model.parameters()", 'model.get_submodule("head").parameters()', "does not change class_token"),
    "old gradients": ("optimizer.zero_grad()", "pass", "The gradients of earlier batches are still there"),
    "not a number": ("loss.backward()", "(loss * math.nan).backward()", "infinite numbers or NaN"),
    "labels of others": ("labels[batch])", "labels[batch.flip(0)])", "held-out digits"),
    "an error": ("labels[batch])", "labels)", ": ValueError: Expected input batch_size (64)"),
}


def learner_of(source: str, folder: Path) -> Learner:
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    learner = Learner(path)
    learner.load()
    return learner


def edited(old: str, new: str) -> str:
    assert old in SOLUTION
    return SOLUTION.replace(old, new)


def test_the_committed_file_is_made_from_the_reading_copy():
    assert make.EXERCISE.read_text(encoding="utf-8") == EXERCISE
    assert len(BLANKS) == EXERCISE.count('"""Step') == 15
    assert sorted(number for blank in BLANKS.values() for number in blank.stops) == [1, 2, 2, 3, 4, 5, 6, 7, 8]


def test_a_new_function_of_the_reading_copy_needs_a_blank():
    with pytest.raises(ValueError, match="the same functions: more"):
        make.exercise(SOLUTION + "\n\ndef more() -> None:\n    pass\n")


def test_the_solution_passes_every_check(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(SOLUTION, encoding="utf-8")
    assert main([str(path), "--epochs", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:7] == [f"{step}: right" for step in STEPS[:7]]
    result = re.fullmatch(r"step 8, training: right: it reads ([\d.]+)% of 359 held-out digits, .*", lines[7])
    assert result
    assert float(result[1]) >= 95
    assert lines[8].startswith("All steps are right")


def test_the_blank_file_is_open_from_step_1_on(fresh_process):
    code = "import runpy; runpy.run_module('examples.build_it_yourself', run_name='__main__')"
    done = fresh_process(code)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        f"step 1, patch embedding: not written yet (examples/build_it_yourself/my_vit.py:{line_of('step 1')})",
        "next: step 1: write PatchEmbedding (equation 1); read docs/paper/patch_embedding.md",
    ]


def line_of(words: str) -> int:
    """The line of the exercise at which a step stops."""
    lines = EXERCISE.splitlines()
    return next(i for i, line in enumerate(lines, 1) if "raise" in line and f'"{words}:' in line)


@pytest.mark.parametrize("number", range(2, 8))
def test_the_steps_before_an_open_one_are_right(number, tmp_path, capsys):
    """Also while VisionTransformer, started in step 2, is not finished."""
    source = edited(
        "        y = self.encoder(x)[:, 0]", '        raise NotImplementedError("step 7: later")\n        y = x'
    )
    source = source.replace("        self.encoder = Encoder(width, depth, num_heads, mlp_dim)\n", "")
    names = [name for name, blank in BLANKS.items() if blank.stops and blank.stops[-1] == number]
    blank = dict(make.named_functions(ast.parse(EXERCISE)))
    for name in names if number < 7 else ():
        for part in (name.replace(".forward", ".__init__"), name):
            function = dict(make.named_functions(ast.parse(source)))[part]
            lines = source.splitlines()
            lines[function.lineno - 1 : function.end_lineno] = [
                "    " + ast.unparse(blank[part]).replace("\n", "\n    ")
            ]
            source = "\n".join(lines)
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    assert main([str(path)]) == 1
    *right, unwritten, following = capsys.readouterr().out.splitlines()
    assert right == [f"{step}: right" for step in STEPS[: number - 1]]
    assert re.fullmatch(rf"{STEPS[number - 1]}: not written yet \(.*mine.py:\d+\)", unwritten)
    assert following.startswith(f"next: step {number}: write {STEPS[number - 1].write}")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name, tmp_path):
    number, old, new, words = MISTAKES[name]
    with pytest.raises(Fault) as caught:
        check_box(learner_of(edited(old, new), tmp_path), BOXES[number])
    assert words in caught.value.text
    assert not caught.value.unwritten


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_mistake_in_the_training_loop_is_named(name, tmp_path):
    old, new, words = UNTRAINED[name]
    with pytest.raises(Fault) as caught:
        check_training(learner_of(edited(old, new), tmp_path), epochs=1)
    assert words in caught.value.text


def test_gradients_may_be_clipped_and_accumulated_on_purpose(tmp_path):
    source = edited(
        "            loss.backward()\n",
        "            (loss / 2).backward(retain_graph=True)\n            (loss / 2).backward()\n"
        "            nn.utils.clip_grad_norm_(model.parameters(), 0.1)\n",
    )
    assert "it reads" in check_training(learner_of(source, tmp_path), epochs=2, goal=0.1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_this_name\n", r"mine.py:1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def f(:\n", r"mine.py:1: SyntaxError: invalid syntax"),
        ("\n\nraise SystemExit('out')\n", r"mine.py:3: SystemExit: out"),
        ("x = 1\n", r"mine.py does not define PatchEmbedding"),
        ("PatchEmbedding = lambda size, width: 3\n", r"PatchEmbedding is not an nn.Module"),
        ("class PatchEmbedding: pass\n", r"PatchEmbedding\(4, 24\): TypeError"),
    ],
)
def test_an_error_in_the_file_is_shown_in_one_line(source, message, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    assert main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 1, patch embedding: not right yet"
    assert re.search(message, lines[1])
    assert lines[2:] == ["next: step 1: fix PatchEmbedding (equation 1); read docs/paper/patch_embedding.md"]


def test_a_traceback_is_shown_only_on_request(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("def f():\n    return 1 / 0\n\nf()\n", encoding="utf-8")
    main([str(path)])
    assert "Traceback" not in "".join(capsys.readouterr())
    main([str(path), "--traceback"])
    shown = capsys.readouterr()
    assert "mine.py:2: ZeroDivisionError: division by zero" in shown.out
    assert "return 1 / 0" in shown.err


@pytest.mark.parametrize("arguments", [["nothing.py"], ["."], ["--epochs", "0"], ["--no-such-option"]])
def test_bad_usage_is_an_error_without_a_traceback(arguments, capsys):
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    shown = capsys.readouterr()
    assert "error: " in shown.err
    assert "Traceback" not in shown.err
    assert not shown.out


def test_checking_does_not_change_the_random_state_of_torch(tmp_path):
    state = torch.get_rng_state()
    list(zip(range(2), check_steps(learner_of(SOLUTION, tmp_path)), strict=False))
    assert torch.equal(torch.get_rng_state(), state)


def test_changes_are_not_overwritten(tmp_path, monkeypatch, capsys):
    path = tmp_path / "my_vit.py"
    monkeypatch.setattr(make, "EXERCISE", path)
    assert make.main([]) == 0
    assert path.read_text(encoding="utf-8") == EXERCISE
    path.write_text("mine", encoding="utf-8")
    assert make.main([]) == 2
    assert "has changes" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "mine"
    assert make.main(["--again"]) == 0
    assert path.read_text(encoding="utf-8") == EXERCISE


def test_the_guide_shows_the_real_output(tmp_path, capsys):
    """Except for the numbers."""
    guide = (ROOT / "docs/paper/build.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```text\n(step 1.*?)^```", guide, re.MULTILINE | re.DOTALL)
    path = tmp_path / "mine.py"
    path.write_text(edited(" / math.sqrt(q.shape[-1])", ""), encoding="utf-8")
    main([str(path)])
    assert re.sub(r"[\d.]+", "#", capsys.readouterr().out) == re.sub(r"[\d.]+", "#", shown)


def test_the_guide_covers_every_step():
    guide = (ROOT / "docs/paper/build.md").read_text(encoding="utf-8")
    assert f"for {EPOCHS} epochs" in guide
    headings = re.findall(r"^## Step (\d): (.*)$", guide, re.MULTILINE)
    assert headings == [(str(step.number), step.title) for step in STEPS]
    parts = re.split(r"^## Step ", guide, flags=re.MULTILINE)[1:]
    for step, part in zip(STEPS, parts, strict=True):
        assert f"]({step.page})" in part
        assert step.where in part
