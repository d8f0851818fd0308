"""Writes examples/README.md anew from the recorded tables.

python examples/paper/make_page.py [--check]
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from _experiment import Row, mean_and_deviation, of, read

from keras_rwinit._files import write_atomically

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "README.md"


def page() -> str:
    """The page."""
    paragraphs = "\n\n".join([HEAD, *(section() for section in SECTIONS)]).split("\n\n")
    return "\n\n".join(part if part.startswith("|") else wrapped(part) for part in paragraphs if part) + "\n"


def wrapped(paragraph: str) -> str:
    """In lines of at most 118 characters."""
    return textwrap.fill(paragraph, 118, break_long_words=False, break_on_hyphens=False)


HEAD = """# Examples

`thousand_layers.py`, `ten_thousand_layers.py` and `gain_landscape.py` are short programs to begin with.
`paper/` repeats the experiments of the paper (Sussillo & Abbott, arXiv:1412.6558) with this package's parts.

This page is written by `python examples/paper/make_page.py` from the tables in `paper/results`: every number
of a result below is in the CSV file named beside it. A command without `--output` runs the experiment anew in
`runs/paper`; stopped, it goes on where it was when it is started again. `--data-dir FOLDER` names prepared
tensorflow-datasets sets, and `--quick` runs it in a small form. Most runs had one processor core, and several
ran side by side on a shared machine: the times are those of a busy core.

The networks in the tables: `random_walk` has the paper's normal kernels with the computed gain,
`random_walk_orthogonal` orthogonal ones; `he_normal`, `glorot_uniform` and `orthogonal` are Keras's
initializers in the same network; `residual` is a residual network of the same size, `h <- f(h + W h + b)`
with `he_normal / sqrt(depth)` branches. Unless a section says otherwise all of them get the same optimizer,
learning rate, batches and number of epochs, and an entry is mean ± standard deviation over the seeds."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def source(name: str, rows: Sequence[Row], more: Sequence[str] = ()) -> str:
    """The command, the tables, and what they say of seeds, machine and time."""
    files = ", ".join(f"[{file}](paper/results/{name}/{file})" for file in ("results.csv", *more))
    minutes = sum(row["seconds"] for row in rows) / 60.0
    machines = " / ".join(dict.fromkeys(row["machine"] for row in rows))
    seeds = sorted({row[name] for row in rows for name in ("seed", "root") if name in row})
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 10 else "as in the tables"
    said = f"seed{'s'[: len(seeds) != 1]} {shown}; " if seeds else ""
    return (
        f"`python examples/paper/{name}.py`: {files}; {said}{len(rows)} runs, {minutes:.0f} min; {machines}."
    )


def picture(name: str, says: str, file: str = "picture.png") -> str:
    """A picture."""
    return f"![{says}](paper/results/{name}/{file})"


def cell(rows: Sequence[Row], column: str, percent: bool = False) -> str:
    """Mean ± deviation; how many of the runs diverged, if any did."""
    if not rows:
        return ""
    mean, deviation = mean_and_deviation(rows, column)
    if not math.isfinite(mean):
        return "diverged"
    scale, digits = (100.0, 2) if percent else (1.0, 3)
    spread = f" ± {scale * deviation:.{digits}f}" if math.isfinite(deviation) else ""
    return f"{scale * mean:.{digits}f}{spread}"


def distinct(rows: Iterable[Row], column: str) -> list[str | int | float]:
    """Values of a column, in their order."""
    return list(dict.fromkeys(row[column] for row in rows))


def sample_walks() -> str:
    """Section 1."""
    rows, fits, networks = (
        read(RESULTS / "sample_walks" / f"{name}.csv") for name in ("results", "exponents", "networks")
    )
    lines = [
        [
            f"{fit['activation']}, spread against {fit['law']} at {fit['fixed']}",
            f"{fit['expected']:g}",
            f"{fit['exponent']:.4f}",
            f"{fit['low']:.4f} to {fit['high']:.4f}",
            str(fit["inside"]),
            str(fit["points"]),
        ]
        for fit in fits
    ]
    depth, width = networks[0]["depth"], networks[0]["width"]
    drifts = []
    for name in distinct(networks, "initializer"):
        drawn = of(networks, initializer=name)
        predicted = drawn[0]["mean_predicted"]
        drifts.append(
            [
                str(name),
                cell(drawn, "drift"),
                f"{predicted:.2f} ± {drawn[0]['std_predicted']:.2f}" if predicted != "" else "",
            ]
        )
    return "\n\n".join(
        [
            "## Sample walks, and the two square-root laws",
            picture("sample_walks", "Walks of the gradient's log-norm inside the predicted bands"),
            picture("sample_walks", "Spread against depth and width, with fits", "exponents.png"),
            f"Exponents of the spread of the log-norm, each point from {rows[0]['samples']} simulated "
            "networks; the "
            "exponent of depth is that of `depth - 1`, the number of steps:",
            table(["law", "expected", "fitted", "95 % interval", "inside", "points"], lines),
            f"The walk of real Keras networks, {depth} ReLU layers of width {width}: ln |delta| at the "
            "first hidden "
            "layer relative to the last, in nats, and what `predict_walk` says of the networks it covers:",
            table(["", "measured", "predicted"], drifts),
            "Both laws hold. He's initialization loses what the formula says it does, and "
            "initializations without "
            "the factor of ReLU lose a third of a nat a layer.",
            source("sample_walks", [*rows, *networks], ["exponents.csv", "networks.csv"]),
        ]
    )


def optimal_gain() -> str:
    """Section 2."""
    rows, points, baselines = (
        read(RESULTS / "optimal_gain" / f"{name}.csv") for name in ("results", "points", "baselines")
    )
    lines = [
        [
            str(row["width"]),
            str(row["depth"]),
            f"{row['gain']:.4f}",
            f"{row['gain_simulated']:.4f} ± {row['gain_error']:.4f}",
            f"{row['deviation']:+.1f}",
        ]
        for row in points
    ]
    depths = distinct(baselines, "depth")
    drifts = [
        [
            str(name),
            *(
                "0" if abs(row["drift"]) < 0.005 else f"{row['drift']:+.2f}"
                for row in of(baselines, initializer=name)
            ),
        ]
        for name in distinct(baselines, "initializer")
    ]
    return "\n\n".join(
        [
            "## The optimal gain for tanh",
            picture("optimal_gain", "Map of the gain over width and depth, with simulated points"),
            table(["width", "depth", "computed", "simulated ± its error", "difference in errors"], lines),
            f"Predicted drift of the gradient's log-norm at width {baselines[0]['width']}, in nats over all "
            "layers (a residual network's is no walk through independent kernels; the measured one is in the "
            "section above):",
            table(["", *(f"depth {depth}" for depth in depths)], drifts),
            "**Other than in the paper:** 1.1 to 1.3 covers the middle of the map only. Networks of few "
            "layers need "
            "more, wide ones of many layers less, and the constant 1.13 of TensorFlow's old initializer "
            "is right "
            "along one line. At the narrowest width the computed gain, of first order in 1 / width, is "
            "off by a "
            "few parts in a thousand; from the next one up it agrees with the simulation.",
            source("optimal_gain", [*rows, *points], ["points.csv", "baselines.csv"]),
        ]
    )


def autoencoder() -> str:
    """Section 6."""
    rows = read(RESULTS / "autoencoder" / "results.csv")
    results = [row for row in rows if row["seed"] > 0]
    depths = distinct(results, "depth")
    lines = [
        [str(name), *(cell(of(results, initializer=name, depth=depth), "test_error") for depth in depths)]
        for name in distinct(results, "initializer")
    ]
    first = results[0]
    return "\n\n".join(
        [
            "## A deep autoencoder",
            picture("autoencoder", "Reconstruction error against depth"),
            f"`model_zoo.deep_autoencoder` from {first['width']} units through {first['bottleneck']}: "
            "the part of the "
            "variance of the test images that is not reconstructed, by number of hidden layers, each at "
            "its better "
            "learning rate of those tried with seed 0, mean ± standard deviation over the other seeds:",
            table(["", *map(str, depths)], lines),
            AUTOENCODER,
            source("autoencoder", rows, ["components.csv"]),
        ]
    )


AUTOENCODER = (
    "The orthogonal random walk is ahead at every depth, of the residual network too, which skips only the "
    "kernels that are square. Normal kernels differ so much between seeds at 40 layers that they cannot be "
    "ranked beside Keras's glorot_uniform; at 120 they are behind it. **Not found:** an advantage of more "
    "layers, from any initializer."
)


def loss_against_gain() -> str:
    """Section 3."""
    from loss_against_gain import WALKS, groups, optimum

    rows = read(RESULTS / "loss_against_gain" / "results.csv")
    names = [name for name in distinct(rows, "initializer") if name not in WALKS.values()]
    lines = []
    for group in groups(rows):
        best = optimum(group)
        walks = of(group, initializer=WALKS[best["activation"]])
        lines.append(
            [
                f"{best['activation']} {best['depth']}",
                f"{best['computed_gain']:.4f}",
                cell(of(walks, gain_ratio=1.0), "loss"),
                f"{best['best_ratio']:g}",
                cell(of(walks, gain_ratio=best["best_ratio"]), "loss"),
                f"{best['cost_of_computed']:.3f}",
                *(cell(of(group, initializer=name), "loss") for name in names),
            ]
        )
    columns = [
        "network",
        "computed gain",
        "loss there",
        "best ratio tried",
        "loss there",
        "difference",
        *names,
    ]
    return "\n\n".join(
        [
            "## Training loss against the gain",
            picture(
                "loss_against_gain",
                "Training loss against the gain over the computed gain; the marks at the right are the other "
                "initializers",
            ),
            table(columns, lines),
            LOSS_AGAINST_GAIN,
            source("loss_against_gain", rows),
        ]
    )


LOSS_AGAINST_GAIN = (
    "Training loss in nats, kernels orthogonal for tanh. The best of the gains tried is at or a few per "
    "cent under the computed one, and the more layers, the narrower the range around it in which a network "
    "learns: at 500 tanh layers and at 200 of ReLU ten per cent off, to either side, is no longer in it. "
    "One seed. **Other than in the paper:** on ReLU he_normal, one per cent under the computed gain, does a "
    "little better, and the residual network is far ahead of both."
)


def fixed_parameters() -> str:
    """Section 4."""
    rows = read(RESULTS / "fixed_parameters" / "results.csv")
    parts = ["## A fixed number of parameters", picture("fixed_parameters", "Error against depth")]
    for activation, error in itertools.product(
        distinct(rows, "activation"), ("training_error", "test_error")
    ):
        drawn = of(rows, activation=activation)
        depths = distinct(drawn, "depth")
        widths = {depth: of(drawn, depth=depth)[0]["width"] for depth in depths}
        columns = ["", *(f"{depth} x {widths[depth]}" for depth in depths)]
        lines = [
            [str(name), *(cell(of(drawn, initializer=name, depth=depth), error, True) for depth in depths)]
            for name in distinct(drawn, "initializer")
        ]
        parts += [
            f"{activation}, {error.replace('_', ' ')} in per cent, depth x width:",
            table(columns, lines),
        ]
    best = {
        name: min(
            distinct(rows, "depth"),
            key=lambda depth: mean_and_deviation(
                of(rows, initializer=name, depth=depth, activation="tanh"), "training_error"
            )[0],
        )
        for name in distinct(rows, "initializer")
    }
    deepest = max(best.values())
    parts.append(
        "The paper's finding is confirmed: at a fixed number of parameters depth alone does not guarantee a "
        f"lower training error. It is least at {min(best.values())} to {deepest} layers, whatever the "
        "initializer, and higher at all greater depths. From 8 layers up it is lowest with the orthogonal "
        "random walk, at 512 and 1000 layers within the noise of Keras's orthogonal kernels. **Other than in "
        "the paper:** normal kernels, though their gradient neither grows nor shrinks, do not train networks "
        "of hundreds of tanh layers this narrow in two epochs."
    )
    return "\n\n".join([*parts, source("fixed_parameters", rows)])


def speech() -> str:
    """Section 5."""
    rows = read(RESULTS / "speech" / "results.csv")
    depths = distinct(rows, "depth")
    columns = ["", *(f"{depth} layers, {error}" for depth in depths for error in ("training", "test"))]
    lines = [
        [
            str(name),
            *(
                cell(of(rows, initializer=name, depth=depth), f"{error}_error", True)
                for depth in depths
                for error in ("training", "test")
            ),
        ]
        for name in distinct(rows, "initializer")
    ]
    return "\n\n".join(
        [
            "## Speech, frame by frame",
            picture("speech", "Test error of every initializer at two depths"),
            "Frames wrongly classified, in per cent:",
            table(columns, lines),
            SPEECH,
            source("speech", rows),
        ]
    )


SPEECH = (
    "At 20 layers the initializers are within a factor of two; at 100 the choice decides. The orthogonal "
    "random walk loses least to depth and is ahead of the residual network of the same size. **Other than "
    "in the paper:** normal kernels hardly learn at 100 layers in two epochs. TIMIT itself is licensed and "
    "was not at hand: `--dataset timit` runs the same experiment on it."
)


def recipe() -> str:
    """Section 7."""
    from recipe import variants

    rows = read(RESULTS / "recipe" / "results.csv")
    parts = ["## What each part of the recipe is worth", picture("recipe", "Loss of each variant")]
    for activation in distinct(rows, "activation"):
        drawn = of(rows, activation=activation)
        first = drawn[0]
        lines = [
            [name, cell(group, "loss"), cell(group, "training_error", True), cell(group, "test_error", True)]
            for name, group in variants(drawn).items()
        ]
        parts += [
            f"{first['depth']} {activation} layers of width {first['width']}:",
            table(["", "training loss (nats)", "training error (%)", "test error (%)"], lines),
        ]
    return "\n\n".join([*parts, RECIPE, source("recipe", rows)])


RECIPE = (
    "A tenth of the gain in the first layer lowers the loss of both by about 30 %, of ReLU with a spread "
    "between the seeds half as large. Why is not tested here; tanh may gain by beginning nearly linear, "
    "ReLU by biases that sooner count beside small activations. A smaller gain in the last layer costs tanh "
    "much and ReLU nothing. A small gain in the first layer and a larger one in the last together halve "
    "tanh's loss: the preset of 100 tanh layers has about these. That of 1000, the main job's, keeps the "
    "computed gains, with which the gradient's walk is unbiased from the first layer on. The cosine is "
    "worth a quarter of tanh's loss; warm-up beside it is worth nothing. For tanh the learning rate has "
    "little room above 0.03 / depth; ReLU takes three times as much in two epochs. The ReLU preset of 200 "
    "layers, with its random biases, stronger gains and a lower rate over 20 epochs, was found beside this "
    "table; what its biases are worth is in the first section. **Other than in the paper:** on ReLU "
    "he_normal and a constant rate do a little better than the recipe, and the residual network is far "
    "ahead. With two seeds, differences of less than a few deviations say nothing."
)


def deep_mnist() -> str:
    """The presets."""
    rows = read(RESULTS / "deep_mnist" / "results.csv")
    parts = [
        "## A thousand layers, and two hundred of ReLU, on MNIST",
        picture("deep_mnist", "Test error against the epoch"),
    ]
    for preset in distinct(rows, "preset"):
        drawn = of(rows, preset=preset)
        first = drawn[0]
        lines = [
            [
                row["initializer"],
                str(row["epochs_run"]),
                f"{row['loss']:.4f}",
                f"{100 * row['training_error']:.2f}",
                f"{100 * row['test_error']:.2f}",
                f"{row['seconds'] / 60:.0f} min",
            ]
            for row in drawn
        ]
        parts += [
            f"`keras-rwinit train --preset {preset}`: {first['depth']} {first['activation']} layers of width "
            f"{first['width']}, {first['epochs']} epochs:",
            table(
                [
                    "",
                    "epochs",
                    "training loss (nats)",
                    "training error (%)",
                    "test error (%)",
                    "time",
                ],
                lines,
            ),
        ]
    return "\n\n".join([*parts, DEEP_MNIST, source("deep_mnist", rows, ["history.csv"])])


DEEP_MNIST = (
    "A network that still guesses after three epochs is not trained further. Orthogonal kernels of slope "
    "0.9 with the exact gain learn; the same kernels without it, and Keras's default, leave by the formula "
    "e^-50 of the gradient and less after a thousand layers, and he_normal diverges. All ReLU networks but "
    "`random_walk_zero_biases` have the same random biases (`bias_stddev` of `deep_mlp`), both random walks "
    "also a small gain in the first layer and a large one in the last, so that he_normal, half a per cent "
    "under the computed gain at this width, differs from them in more than its gain. Without those biases "
    "the training error is five times as large. The residual network of 200 layers fits the training set "
    "nearly whole and tests about as well; that of 1000 fits it too, and tests worse. One seed."
)

SECTIONS = (
    deep_mnist,
    sample_walks,
    optimal_gain,
    loss_against_gain,
    fixed_parameters,
    speech,
    autoencoder,
    recipe,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page, or ends with an error if it is not what the tables say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    if parser.parse_args(arguments).check:
        if PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE.name} is not what the tables say: run examples/paper/make_page.py")
        return
    text = page()
    write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
