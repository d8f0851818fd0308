"""The tables and numbers of the page of results, made from the CSV files in results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from _experiment import Row, distinct, markdown_table, mean_and_deviation, read, select
from loss_against_gain import WALKS, groups
from recipe import variants
from sample_walks import deviation_of_walks

__all__ = ["page_values"]

RESULTS = Path(__file__).parent / "results"
ERRORS = ("training_error", "test_error")
RESULT_COLUMNS = ("training loss (nats)", "training error (%)", "test error (%)")
FEWEST = 3  # runs from which a deviation says something


def page_values() -> dict[str, str]:
    """Returns the text of every mark in page.md; a mark is named `experiment.value`."""
    return {f"{values.__name__}.{name}": text for values in EXPERIMENTS for name, text in values().items()}


def deep_mnist() -> dict[str, str]:
    """Returns one table and the size of the network for each preset."""
    rows = read_results("deep_mnist")
    columns = ["", "epochs", "training loss (nats)", "training error (%)", "test error (%)", "time"]
    values = {"source": source("deep_mnist", rows, ["history.csv"])}
    for preset in distinct(rows, "preset"):
        of_preset = select(rows, preset=preset)
        lines = [
            [
                row["initializer"],
                str(row["epochs_run"]),
                f"{row['loss']:.4f}",
                f"{100 * row['training_error']:.2f}",
                f"{100 * row['test_error']:.2f}",
                f"{row['seconds'] / 60:.0f} min",
            ]
            for row in of_preset
        ]
        values[f"{preset}.table"] = markdown_table(columns, lines)
        values[f"{preset}.size"] = f"{size(of_preset[0])}, {of_preset[0]['epochs']} epochs"
    return values


def sample_walks() -> dict[str, str]:
    """Returns the exponents of the two laws, and the measured and predicted drifts of Keras networks."""
    rows = read_results("sample_walks")
    fits = read_results("sample_walks", "exponents.csv")
    networks = read_results("sample_walks", "networks.csv")
    exponents = [
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
    drifts = []
    for name in distinct(networks, "initializer"):
        of_name = select(networks, initializer=name)
        mean, deviation = of_name[0]["mean_predicted"], of_name[0]["std_predicted"]
        predicted = "" if mean == "" else f"{mean:.2f} ± {deviation:.2f}"
        measured, _ = mean_and_deviation(of_name, "drift")
        drifts.append([str(name), f"{measured:.2f} ± {deviation_of_walks(of_name):.2f}", predicted])
    return {
        "samples": str(rows[0]["samples"]),
        "exponents": markdown_table(
            ["law", "expected", "fitted", "95 % interval", "inside", "points"], exponents
        ),
        "size": f"{networks[0]['depth']} ReLU layers of width {networks[0]['width']}",
        "networks": str(len(of_name)),
        "examples": str(networks[0]["examples"]),
        "drifts": markdown_table(["", "measured", "predicted"], drifts),
        "source": source("sample_walks", [*rows, *networks], ["exponents.csv", "networks.csv"]),
    }


def optimal_gain() -> dict[str, str]:
    """Returns computed and simulated gains, and the predicted drift of other initializers."""
    rows = read_results("optimal_gain")
    points = read_results("optimal_gain", "points.csv")
    baselines = read_results("optimal_gain", "baselines.csv")
    gains = [
        [
            str(row["width"]),
            str(row["depth"]),
            f"{row['gain']:.4f}",
            f"{row['gain_simulated']:.4f} ± {row['gain_error']:.4f}",
            f"{row['deviation']:+.1f}",
        ]
        for row in points
    ]
    drifts = [
        [str(name), *(signed(row["drift"]) for row in select(baselines, initializer=name))]
        for name in distinct(baselines, "initializer")
    ]
    depths = [f"depth {depth}" for depth in distinct(baselines, "depth")]
    columns = ["width", "depth", "computed", "simulated ± standard error", "difference in standard errors"]
    return {
        "gains": markdown_table(columns, gains),
        "width": str(baselines[0]["width"]),
        "drifts": markdown_table(["", *depths], drifts),
        "source": source("optimal_gain", [*rows, *points], ["points.csv", "baselines.csv"]),
    }


def loss_against_gain() -> dict[str, str]:
    """Returns the losses at every gain tried, and those of other initializers."""
    rows = read_results("loss_against_gain")
    names = [name for name in distinct(rows, "initializer") if name not in WALKS.values()]
    ratios = [ratio for ratio in distinct(rows, "gain_ratio") if ratio != ""]
    walks, others = [], []
    for group in groups(rows):
        activation, depth = group[0]["activation"], group[0]["depth"]
        own = select(group, initializer=WALKS[activation])
        computed = select(own, gain_ratio=1.0)[0]["gain"]
        network = f"{activation} {depth}"
        losses = [mean_cell(select(own, gain_ratio=ratio), "loss") for ratio in ratios]
        walks.append([network, f"{computed:.4f}", *losses])
        others.append([network, *(mean_cell(select(group, initializer=name), "loss") for name in names)])
    return {
        "losses": markdown_table(["", "computed gain", *(f"x {ratio:g}" for ratio in ratios)], walks),
        "others": markdown_table(["", *map(str, names)], others),
        "source": source("loss_against_gain", rows),
    }


def fixed_parameters() -> dict[str, str]:
    """Returns training and test errors by depth."""
    rows = read_results("fixed_parameters")
    depths = distinct(rows, "depth")
    widths = [select(rows, depth=depth)[0]["width"] for depth in depths]
    columns = ["", *(f"{depth} x {width}" for depth, width in zip(depths, widths, strict=True))]
    return {
        **{error: markdown_table(columns, error_lines(rows, [error])) for error in ERRORS},
        "source": source("fixed_parameters", rows),
    }


def speech() -> dict[str, str]:
    """Returns training and test errors at both depths."""
    rows = read_results("speech")
    columns = [
        f"{depth} layers, {error.removesuffix('_error')}"
        for depth, error in itertools.product(distinct(rows, "depth"), ERRORS)
    ]
    return {
        "errors": markdown_table(["", *columns], error_lines(rows, ERRORS)),
        "source": source("speech", rows),
    }


def autoencoder() -> dict[str, str]:
    """Returns the reconstruction error by depth, without the runs of seed 0, which chose the rates."""
    rows = read_results("autoencoder")
    results = [row for row in rows if row["seed"] > 0]
    depths = distinct(results, "depth")
    lines = []
    for name in distinct(results, "initializer"):
        of_name = select(results, initializer=name)
        lines.append(
            [str(name), *(mean_cell(select(of_name, depth=depth), "test_error") for depth in depths)]
        )
    return {
        "width": str(results[0]["width"]),
        "bottleneck": str(results[0]["bottleneck"]),
        "errors": markdown_table(["", *map(str, depths)], lines),
        "source": source("autoencoder", rows, ["components.csv"]),
    }


def recipe() -> dict[str, str]:
    """Returns one table and the size of the network for each activation."""
    rows = read_results("recipe")
    values = {"source": source("recipe", rows)}
    for activation in distinct(rows, "activation"):
        of_activation = select(rows, activation=activation)
        lines = [[name, *result_cells(group)] for name, group in variants(of_activation).items()]
        values[f"{activation}.table"] = markdown_table(["", *RESULT_COLUMNS], lines)
        values[f"{activation}.size"] = size(of_activation[0])
    return values


def tuned_baselines() -> dict[str, str]:
    """Returns the losses at the tuned settings, and those of He's gain and the computed one."""
    rows = read_results("tuned_baselines")
    narrow = read_results("tuned_baselines", "narrow.csv")
    lines = []
    for activation, name in distinct_pairs(rows, "activation", "network"):
        group = [row for row in select(rows, activation=activation, network=name) if row["seed"] > 0]
        first = group[0]
        lines.append(
            [
                f"{activation}, {name}",
                f"{first['rate']:g}",
                f"{first['output_scale']:g}",
                mean_cell(group, "loss", digits=4),
                mean_cell(group, "test_error", percent=True),
            ]
        )
    compared = []
    for width in distinct(narrow, "width"):
        groups_of_width = [
            [row for row in select(narrow, width=width, network=name) if row["seed"] > 0]
            for name in ("computed gain", "he")
        ]
        (mean, deviation), (he, he_deviation) = (
            mean_and_deviation(group, "loss") for group in groups_of_width
        )
        error = ((deviation**2 + he_deviation**2) / len(groups_of_width[0])) ** 0.5
        cells = [mean_cell(group, "loss") for group in groups_of_width]
        compared.append([str(width), *cells, f"{(mean - he) / error:+.1f}"])
    columns = ["", "learning rate", "output scale", "training loss (nats)", "test error (%)"]
    narrow_columns = ["width", "computed gain", "gain sqrt(2)", "difference in standard errors"]
    return {
        "size": f"{rows[0]['depth']} layers of width {rows[0]['width']}",
        "losses": markdown_table(columns, lines),
        "narrow": markdown_table(narrow_columns, compared),
        "source": source("tuned_baselines", [*rows, *narrow], ["narrow.csv"]),
    }


def smooth_activations() -> dict[str, str]:
    """Returns the size of the networks, and their losses and errors."""
    rows = read_results("smooth_activations")
    lines = []
    for depth, activation in sorted(distinct_pairs(rows, "depth", "activation")):
        group = select(rows, depth=depth, activation=activation)
        lines.append(
            [
                f"{depth} {activation} layers",
                f"{group[0]['rate']:.1e}",
                *result_cells(group, digits=4),
            ]
        )
    return {
        "width": str(rows[0]["width"]),
        "epochs": str(rows[0]["epochs"]),
        "errors": markdown_table(["", "learning rate", *RESULT_COLUMNS], lines),
        "source": source("smooth_activations", rows),
    }


def plain_against_residual() -> dict[str, str]:
    """Returns the losses and errors of each network at the rate that seed 0 chose."""
    every = read_results("plain_against_residual")
    rows = [row for row in every if row["seed"] > 0]
    lines = []
    for depth, activation, network in distinct_pairs(rows, "depth", "activation", "network"):
        group = select(rows, depth=depth, activation=activation, network=network)
        lines.append(
            [
                f"{depth} {activation}, {network}",
                str(group[0]["epochs"]),
                f"{group[0]['rate']:.0e}",
                *result_cells(group, digits=4),
            ]
        )
    return {
        "width": str(rows[0]["width"]),
        "errors": markdown_table(["", "epochs", "learning rate", *RESULT_COLUMNS], lines),
        "source": source("plain_against_residual", every),
    }


EXPERIMENTS: tuple[Callable[[], dict[str, str]], ...] = (
    deep_mnist,
    sample_walks,
    optimal_gain,
    loss_against_gain,
    fixed_parameters,
    speech,
    autoencoder,
    recipe,
    tuned_baselines,
    smooth_activations,
    plain_against_residual,
)


def read_results(name: str, file: str = "results.csv") -> list[Row]:
    """Returns the rows of one of an experiment's tables."""
    return read(RESULTS / name / file)


def source(name: str, rows: Sequence[Row], more_files: Sequence[str] = ()) -> str:
    """Returns the sentence that names the command, the tables, the seeds, the time and the machine."""
    files = ", ".join(f"[{file}](paper/results/{name}/{file})" for file in ("results.csv", *more_files))
    minutes = sum(row["seconds"] for row in rows) / 60.0
    machines = " / ".join(dict.fromkeys(row["machine"] for row in rows))
    seeds = sorted({row[column] for row in rows for column in ("seed", "root") if column in row})
    if len(seeds) == 1:
        shown = f"seed {seeds[0]}"
    elif len(seeds) <= 10:
        shown = f"seeds {', '.join(map(str, seeds))}"
    else:
        shown = "seeds as in the tables"
    runs = f"{len(rows)} runs, {minutes:.0f} min"
    return f"`python examples/paper/{name}.py`: {files}; {shown}; {runs}; {machines}."


def size(row: Row) -> str:
    """Returns depth, activation and width of a network in words."""
    return f"{row['depth']} {row['activation']} layers of width {row['width']}"


def error_lines(rows: Sequence[Row], errors: Sequence[str]) -> list[list[str]]:
    """Returns the errors in per cent, a line for each initializer, a cell for each depth and error."""
    cells = list(itertools.product(distinct(rows, "depth"), errors))
    return [
        [
            str(name),
            *(
                mean_cell(select(rows, initializer=name, depth=depth), error, percent=True)
                for depth, error in cells
            ),
        ]
        for name in distinct(rows, "initializer")
    ]


def result_cells(rows: Sequence[Row], digits: int | None = None) -> list[str]:
    """Returns the cells of `RESULT_COLUMNS`; the digits are those of the loss, as in `mean_cell`."""
    errors = [mean_cell(rows, error, percent=True) for error in ERRORS]
    return [mean_cell(rows, "loss", digits=digits), *errors]


def mean_cell(rows: Sequence[Row], column: str, percent: bool = False, digits: int | None = None) -> str:
    """Returns mean ± deviation of a column, or "diverged"; one or two values are given as they are.

    Args:
        rows: The rows, one for each seed.
        column: Name of the column.
        percent: Whether to multiply by a hundred.
        digits: Digits after the point. `None`: 2 for per cent, otherwise 3.
    """
    if not rows:
        return ""
    mean, deviation = mean_and_deviation(rows, column)
    if not math.isfinite(mean):
        return "diverged"
    scale, usual = (100.0, 2) if percent else (1.0, 3)
    digits = usual if digits is None else digits
    if len(rows) < FEWEST:
        return ", ".join(f"{scale * row[column]:.{digits}f}" for row in rows)
    return f"{scale * mean:.{digits}f} ± {scale * deviation:.{digits}f}"


def signed(value: float) -> str:
    """Returns a number with its sign; 0 if it would round to zero."""
    return "0" if abs(value) < 0.005 else f"{value:+.2f}"


def distinct_pairs(rows: Iterable[Row], *columns: str) -> list[tuple[str | int | float, ...]]:
    """Returns the values of several columns in the order of their first rows."""
    return list(dict.fromkeys(tuple(row[column] for column in columns) for row in rows))
