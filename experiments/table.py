"""The experiments: their questions, and the commands that answer them. All settings are here."""

import shlex
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """What every seed of a run should reach.

    Args:
        accuracy: at least, in [0, 1].
        seconds: at most, of the whole command.
    """

    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """One command, run once for each seed.

    Args:
        name: unique in its experiment.
        command: with {data} for the image set, and {needs} for the folder of the run that it needs. The seed and the
            folder to write to are added.
        seeds: of the runs.
        needs: "experiment/run" whose model it starts from, of that one's first seed.
        goal: to reach.
    """

    name: str
    command: str
    seeds: tuple[int, ...] = (0, 1, 2)
    needs: str | None = None
    goal: Goal | None = None


@dataclass(frozen=True)
class Levels:
    """What a run measures at several levels, instead of one accuracy.

    Args:
        of: what the rows of the table are.
        columns: of the table: the key of each level in a result, and its heading.
        measured: what the values are.
        with_interval: whether the last level is an accuracy on the images of the split, which has an interval.
        axis: the name of the axis that the levels are drawn over; None for no picture.
    """

    of: str
    columns: dict[str, str]
    measured: str = "accuracy"
    with_interval: bool = True
    axis: str | None = None


@dataclass(frozen=True)
class Experiment:
    """Runs that are compared.

    Args:
        name: of the experiment, as ONLY takes it.
        title: its heading.
        question: and how it is answered.
        data: "digits", a name in the folder of the image sets, or one of those that experiments.image_sets makes.
        runs: the rows of its table.
        baseline: the run that the others are compared with.
        axis: what the curves are drawn over.
        levels: measured by its runs instead of one accuracy.
    """

    name: str
    title: str
    question: str
    data: str
    runs: tuple[Run, ...]
    baseline: str | None = None
    axis: Literal["epoch", "seconds", "cpu_seconds"] = "epoch"
    levels: Levels | None = None


TRAIN = "vitreous train {data}"
PROBE = "python -m experiments.probe {data}"
DELETION = "python -m experiments.deletion {data} --model {needs} --scores"
# A small model: on 64 × 64 pixels in patches of 8, of which a stem makes 2, and on 32 × 32 in patches of 4, it sees 64.
SMALL = "--set width=128 --set depth=6 --set mlp_dim=512 --set num_heads=4 --set threads=1"
STEM = "--set stem_blocks=[]"
AT_64 = f"--set variant=mu/2 {STEM} --set image_size=64 {SMALL}"
AT_32 = f"--set variant=mu/4 --set image_size=32 {SMALL}"
# As many steps of as many images with all their patches: fine-tuning costs the same wherever it starts.
EQUAL = "--set patch_dropout=0 --set batch_size=8 --set epochs=60"
FINE_TUNED = f"{TRAIN} --model {{needs}} --recipe finetune --set threads=1 {EQUAL}"

# Products in 16 bits, which is a quarter more images a second where the processor has them.
BF16 = "--set precision=bfloat16"
FAST = f" --recipe small-data --set minutes=0 --set threads=2 {BF16}"  # 84 epochs, on any machine
# About 3 minutes of one thread each.
LEFT_OUT = TRAIN + " --recipe small-data --set threads=1"
WHOLE = LEFT_OUT + " --set epochs=14"
PLAIN = " --set variant=mu/8 --set width=128 --set depth=6 --set mlp_dim=512 --set num_heads=4"
ONE = (0,)

CIFAR_EPOCHS, TIMM_EPOCHS = 4, 2  # measured: each takes 13 to 15 CPU minutes where two other runs have the cores

TABLE: tuple[Experiment, ...] = (
    Experiment(
        "digits",
        "Digits",
        "Does the demo's recipe learn scikit-learn's handwritten digits?",
        "digits",
        (Run("digits", TRAIN, goal=Goal(0.98, 90)),),
    ),
    Experiment(
        "photos-from-scratch",
        "Photos from scratch",
        "How good is a model that has seen nothing but 2,638 photos of three dishes, at 64 × 64 pixels?",
        "pizza_steak_sushi",
        (Run("small-data", TRAIN + FAST, (0, 1), goal=Goal(0.78, 15 * 60)),),
    ),
    Experiment(
        "pretraining",
        "Pre-training on 45 other dishes",
        "What the backbones of the next two experiments learn: the classes of about 44,100 photos, or without labels "
        "what hidden patches show (their mean color, one of 512).",
        "food45_64.zip",
        (
            Run(
                "supervised",
                f"{TRAIN} --recipe small-data {AT_64} --set mixup=0 --set cutmix=0 --set epochs=10 "
                f"--set evaluate_every=2 {BF16}",
                seeds=(0,),
            ),
            Run("masked", f"{TRAIN} --recipe masked-patch+small {AT_64} --set epochs=5 {BF16}", seeds=(0,)),
        ),
    ),
    Experiment(
        "transfer",
        "225 photos: from scratch, and after pre-training",
        "What is pre-training worth where there are 75 photos of each of three dishes (the paper's claim, small)? "
        "Model, batches and number of steps are the same, so that each run costs the same once the weights are there.",
        "pizza_steak_sushi_225",
        (
            Run("scratch", f"{TRAIN} --recipe small-data {AT_64} {EQUAL}"),
            Run("from-supervised", FINE_TUNED, needs="pretraining/supervised"),
            Run("from-masked", FINE_TUNED, needs="pretraining/masked"),
        ),
        baseline="scratch",
    ),
    Experiment(
        "few-shot",
        "225 photos: the few-shot probe",
        "How good are the features as they are? The paper's linear probe, in closed form, on 1, 5, 10 and 25 photos of "
        "each class, and on all 75; the seed draws the photos, and the weights of the random backbone.",
        "pizza_steak_sushi_225",
        (
            Run("random", f"{PROBE} --fresh --model {{needs}}", needs="pretraining/supervised"),
            Run("supervised", f"{PROBE} --model {{needs}}", needs="pretraining/supervised"),
            Run("masked", f"{PROBE} --model {{needs}}", needs="pretraining/masked"),
        ),
        levels=Levels("backbone", {str(shots): f"{shots} a class" for shots in (1, 5, 10, 25)} | {"all": "all"}),
    ),
    Experiment(
        "leave-one-out",
        "What the ingredients of small-data are worth",
        "The recipe `small-data` for about 3 minutes of one thread, with one ingredient less at a time. All have the "
        "same epochs, but the one that sees all patches: it has the same minutes.",
        "pizza_steak_sushi",
        (
            Run("whole", WHOLE, ONE),
            Run("all-patches", LEFT_OUT + " --set epochs=8 --set patch_dropout=0", ONE),
            Run("no-stem", WHOLE + PLAIN, ONE),
            Run("no-mixing", WHOLE + " --set mixup=0 --set cutmix=0", ONE),
            Run("no-random-crop", WHOLE + " --set crop_scale=[1,1] --set crop_ratio=[1,1]", ONE),
            Run("no-flip", WHOLE + " --set flip=false", ONE),
            Run("learned-positions", WHOLE + " --set position_embedding=learned", ONE),
            Run("class-token", WHOLE + " --set class_token=true --set pooling=class_token", ONE),
            Run("no-label-smoothing", WHOLE + " --set label_smoothing=0", ONE),
            Run("no-weight-decay", WHOLE + " --set weight_decay=0", ONE),
            Run("no-warmup", WHOLE + " --set warmup_epochs=0", ONE),
        ),
        baseline="whole",
    ),
    Experiment(
        "cifar10",
        "CIFAR-10 in 15 CPU minutes, beside timm",
        "What 15 minutes of one core's time give, reading the files included: `small-data` beside timm's own model of "
        "the same shape, trained by timm's own parts, on the same files and the same validation split.",
        "cifar10",
        (
            Run(
                "vitreous",
                f"{TRAIN} --recipe small-data {AT_32} --set epochs={CIFAR_EPOCHS}",
                seeds=(0,),
            ),
            Run("timm", f"python -m experiments.timm_script {{data}} --epochs {TIMM_EPOCHS}", seeds=(0,)),
        ),
        axis="cpu_seconds",
    ),
    Experiment(
        "deletion",
        "Deleting what the model looks at",
        "The probability of the true class while patches are deleted (painted in the mean color), the ones with the "
        "highest score first. If the scores are faithful, it drops faster than in random order; `least-relevant` "
        "is the reverse order of `relevance`. Only images that the full model classifies correctly.",
        "pizza_steak_sushi",
        (
            *(
                Run(scores, f"{DELETION} {scores}", (0,), needs="photos-from-scratch/small-data")
                for scores in ("relevance", "gradient", "rollout", "attention", "least-relevant")
            ),
            Run("random", f"{DELETION} random", needs="photos-from-scratch/small-data"),
        ),
        levels=Levels(
            "order",
            {str(share): f"{share} % deleted" for share in (0, 10, 20, 30, 50, 70, 90)},
            "probability of the true class",
            with_interval=False,
            axis="patches deleted, %",
        ),
    ),
)


def find(needs: str, table: tuple[Experiment, ...] = TABLE) -> tuple[Experiment, Run]:
    """The experiment and the run that "experiment/run" names."""
    name, _, run_name = needs.partition("/")
    [pair] = [(one, run) for one in table if one.name == name for run in one.runs if run.name == run_name]
    return pair


def words(run: Run, seed: int, data: str, needs: str = "") -> list[str]:
    """The words of a run's command.

    Args:
        run: the run.
        seed: of the run.
        data: replaces {data}.
        needs: replaces {needs}.
    """
    parts = [{"{data}": data, "{needs}": needs}.get(word, word) for word in shlex.split(run.command)]
    return [*parts, *(("--set", f"seed={seed}") if parts[0] == "vitreous" else ("--seed", str(seed)))]
