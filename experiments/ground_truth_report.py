"""The report of the ground-truth benchmark: tables, curves, and all methods on the same images."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from experiments.ground_truth_cells import Cell, Key, mean_and_deviation, over_folds, ranked_methods
from experiments.ground_truth_figures import randomization_curves
from experiments.ground_truth_metrics import OURS, PAPER
from experiments.job import device_names
from experiments.map_sheets import map_sheet
from vexplain.catalog import title_of
from vexplain.evaluation import CEILING, CONTROLS, HINDSIGHT, SCORES
from vexplain.figures import (
    Picture,
    Report,
    Section,
    Table,
    iou_curves,
    package_versions,
    save_pictures,
    write_report,
)

RECALLED = {  # Table 1 of the paper, as recalled and unchecked: original data, 112 px; IoU area in percent
    PAPER: ("22.5 ± 0.82", "23.2 ± 0.60"),
    "guided_backprop": ("21.3 ± 0.77", "21.9 ± 0.72"),
    "guided_grad_cam": ("19.9 ± 0.61", "19.4 ± 0.34"),
    "guided_grad_cam_plus_plus": ("19.6 ± 0.65", "19.7 ± 0.27"),
    "grad_cam": ("17.5 ± 0.25", "14.8 ± 0.16"),
    "grad_cam_plus_plus": ("15.6 ± 0.57", "14.6 ± 0.12"),
    "upsampled_activation": ("16.8 ± 2.63", "16.1 ± 1.30"),
}
_VARIANTS = ("single_6c", "double_12c")  # the columns of that table
NETWORKS = {
    "flower_net": "FlowerNet (the LeNet-type network of the paper)",
    "all_conv_net": "AllConvNet (five convolutions, three with stride 2)",
}
_NUM_IN_OVERVIEW = 6  # rivals
PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "optax", "numpy")


def write_figures_and_report(
    out: Path,
    cells: Mapping[Key, Sequence[Cell]],
    checks: Mapping[Key, Mapping[str, Any]],
    metrics: Mapping[str, Any],
) -> Path:
    """Writes `figures/*.png` and `report.html`, and returns the path of the report."""
    networks = list(dict.fromkeys(network for _, _, network in cells))
    sections = []
    for network in networks:
        mine = {key: folds for key, folds in cells.items() if key[2] == network}
        sections += [*_as_in_the_paper(network, mine), *_over_cells(network, mine), _curves(network, mine)]
    sections += [_all_scores(cells, checks), *_checks(checks), *_study(metrics["study"])]
    sections = [_overview(cells), *sections, *(_gallery(network, cells) for network in networks)]
    report = Report(
        title="All methods against ground truth: an8Flower",
        lead=lead(cells, metrics),
        key_figures=_key_figures(cells, checks),
        sections=sections,
        settings=metrics["settings"],
        versions=package_versions(PACKAGES) | {"devices": device_names()},
    )
    return write_report(out / "report.html", save_pictures(out / "figures", report))


def lead(cells: Mapping[Key, Sequence[Cell]], metrics: Mapping[str, Any]) -> str:
    """What came out, in words that the numbers bear out."""
    known = (CEILING, *CONTROLS)
    methods = [m for m in ranked_methods(cells, "IoU area") if m not in known and HINDSIGHT not in m]
    above, controls = (
        sorted(
            f"{cell} ({score}: {', '.join(map(title_of, chosen))})"
            for cell, by_score in metrics["above_ours"].items()
            for score, found in by_score.items()
            if score != "part-effect correlation"
            and (chosen := [method for method in found if (method in CONTROLS) == are_controls])
        )
        for are_controls in (False, True)
    )
    verdict = (
        "No other method is significantly above our own map in any cell, by IoU area or best IoU."
        if not above
        else f"Our own map is significantly beaten in: {'; '.join(above)}."
    )
    if controls:
        verdict += f" A control, which sees no network, is above it in: {'; '.join(controls)}."
    return (
        f"{len(methods)} methods and {len(CONTROLS)} controls explain networks on {len(cells)} cells of "
        "variant, difficulty and network. In the mean over cells, by IoU area, "
        f"{title_of(methods[0])} is first; the paper's recipe is number {methods.index(PAPER) + 1}. "
        f"{verdict} Rows of the best layer in hindsight "
        "are not counted here: they were chosen with the truth at hand, which flatters them."
    )


def _key_figures(cells: Any, checks: Any) -> list[tuple[str, str, str]]:
    def mean(method: str, score: str) -> float:
        return float(np.mean([c.scores[method].mean(score) for folds in cells.values() for c in folds]))

    none = (OURS, PAPER, CEILING, *CONTROLS)
    rival = next(m for m in ranked_methods(cells, "IoU area") if m not in none and HINDSIGHT not in m)
    passed = [
        name for name in (PAPER, OURS) if all(found["methods"][name]["passes"] for found in checks.values())
    ]
    found = [
        ("IoU area, ours", f"{mean(OURS, 'IoU area'):.1%}", "mean over all cells"),
        ("best rival", f"{mean(rival, 'IoU area'):.1%}", title_of(rival)),
        ("the paper's recipe", f"{mean(PAPER, 'IoU area'):.1%}", "K = 3"),
    ]
    checked = ("sanity checks passed", f"{len(passed)} of 2", "the recipe and ours, on every network checked")
    return [*found, checked] if checks else found


def _as_in_the_paper(network: str, cells: Mapping[Key, Sequence[Cell]]) -> list[Section]:
    plain = {key[0]: folds for key, folds in cells.items() if key[1] == "plain" and key[0] in _VARIANTS}
    if not plain:
        return []
    variants = list(plain)
    order = ranked_methods(plain, "IoU area")
    rows = []
    for method in order:
        measured = [_percent(*mean_and_deviation(plain[v], method, "IoU area")) for v in variants]
        recalled: dict[str, str] = dict(zip(_VARIANTS, RECALLED.get(method, ("", "")), strict=True))
        rows.append([title_of(method), *measured, *(recalled.get(v, "") for v in variants)])
    header = ["method", *variants, *(f"{v}, recalled" for v in variants)]
    accuracy = np.mean([c.accuracy for folds in plain.values() for c in folds])
    text = (
        "Area under the IoU curve in percent, mean ± standard deviation over folds. The columns on the right "
        "are the paper's numbers as recalled, unchecked, for other images at 112 px. The network classifies "
        f"{accuracy:.1%} of the test images rightly."
    )
    title = f"As in the paper's Table 1: {NETWORKS[network]}"
    return [Section(title, (text,), (), Table(header, rows, bold_rows=_of_relevant_features(order)))]


def _of_relevant_features(methods: Iterable[str]) -> list[int]:
    """The rows of the paper's recipe and of our map."""
    return [row for row, method in enumerate(methods) if method in (PAPER, OURS)]


def _over_cells(network: str, cells: Mapping[Key, Sequence[Cell]]) -> list[Section]:
    sections = []
    for score in ("IoU area", "best IoU", "part-effect correlation"):
        measured = {k: folds for k, folds in cells.items() if score in folds[0].scores[OURS].values}
        if not measured:
            continue
        order = ranked_methods(measured, score)
        rows = []
        for method in order:
            found = [mean_and_deviation(folds, method, score) for folds in measured.values()]
            mean = float(np.mean([value for value, _ in found]))
            rows.append([title_of(method), _number(score, mean), *(_number(score, *f) for f in found)])
        header = ["method", "mean", *(f"{variant[:6]} {difficulty}" for variant, difficulty, _ in measured)]
        table = Table(header, rows, bold_rows=_of_relevant_features(order))
        sections.append(Section(f"{score} in all cells: {network}", (_MEANINGS[score],), (), table))
    return sections


_MEANINGS = {
    "IoU area": "Percent, mean ± standard deviation over folds.",
    "best IoU": "At the best threshold of each image, which nobody knows beforehand. Percent.",
    "part-effect correlation": (
        "Spearman's correlation of the map's mass on each part with what the logit loses when the part is "
        "recolored, turned gray, or brought to its base state; mean of the three."
    ),
}


def _all_scores(cells: Mapping[Key, Sequence[Cell]], checks: Mapping[Key, Mapping[str, Any]]) -> Section:
    order = ranked_methods(cells, "IoU area")
    every = [cell for folds in cells.values() for cell in folds]
    names = [name for name in SCORES if all(name in c.scores[OURS].values for c in every)]
    rows = [
        [
            title_of(m),
            *(f"{np.mean([c.scores[m].mean(s) for c in every]):.3f}" for s in names),
            _num_passed(m, checks),
        ]
        for m in order
    ]
    return Section(
        "All scores, mean over cells and folds",
        (
            "Each cell counts alike. The true mask shows the ceiling of each score. A method whose maps do "
            "not explain the network may score well all the same: the last column says on how many networks "
            "it passed the sanity checks.",
        ),
        (),
        Table([*("method", *names), "checks passed"], rows, bold_rows=_of_relevant_features(order)),
    )


def _num_passed(method: str, checks: Mapping[Key, Mapping[str, Any]]) -> str:
    found = [of["methods"][method]["passes"] for of in checks.values() if method in of["methods"]]
    return f"{sum(found)} of {len(found)}" if found else "–"


def _curves(network: str, cells: Mapping[Key, Sequence[Cell]]) -> Section:
    pictures = []
    for key, folds in cells.items():
        joined = {
            name: s for name, s in over_folds(folds).items() if HINDSIGHT not in name and name != CEILING
        }
        pictures.append(
            Picture(
                iou_curves(joined),
                f"{', '.join(key)}: mean IoU with the true part at each threshold, all folds.",
                "Curves of the methods, the largest area listed first.",
                "-".join(("curves", *key)),
            )
        )
    return Section(f"IoU curves: {network}", (), pictures)


def _checks(checks: Mapping[Key, Mapping[str, Any]]) -> list[Section]:
    return [_check_section(", ".join(key), found) for key, found in checks.items()]


def _check_section(name: str, found: Mapping[str, Any]) -> Section:
    groups, labels = found["jaccard"]["cascading"], found["random_labels_jaccard"]
    shared = [f"shuffled down to {group}: {_decimal(value)}" for group, value in groups.items()]
    shared.append(f"trained on shuffled labels: {_decimal(labels)}")
    cascade = {
        method: {group: np.nan if means[0] is None else means[0] for group, means in of["cascade"].items()}
        for method, of in found["methods"].items()
    }
    picture = Picture(
        randomization_curves(cascade),
        f"{name}: what the maps keep as layer after layer is shuffled (the first draw).",
        "Curves of the methods, the most alike at the end listed first.",
        f"cascade-{name.replace(', ', '-')}",
    )
    return Section(
        f"Does the map explain the network? {name}",
        (
            "Spearman's correlation and SSIM with the map of the trained network: after all layers are "
            "shuffled (mean over the draws, and Spearman of the most alike), for a network trained on "
            "shuffled labels, and for another class. A changed network is asked about what it predicts "
            "itself, and its relevant features are found again; where it predicts one class for all images "
            "it has none, and the map is empty, which counts 0. Beside them the control that has most in "
            "common with the map of the trained network, by Spearman's correlation: it sees no network, and "
            "a check is undecided where a changed network leaves no more than that. Deletion (small is good) "
            "and insertion (large is good) of pixels in the order of the map, class probability, for two "
            "baselines.",
            "The relevant features that the changed networks share with the trained one, mean Jaccard "
            f"index over the classes: {', '.join(shared)}.",
        ),
        (picture,),
        _check_table(found["methods"]),
    )


def _check_table(methods: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, found in methods.items():
        labels = found["random_labels"]
        rows.append(
            [
                title_of(name),
                f"{_pair(found['randomized'])} ({_largest(found['draws'])})",
                _decimal(found["share_gone"]),
                "" if labels is None else _pair(labels),
                _pair(found["other_class"]),
                _most_alike(found["controls"]),
                f"{100 * found['trained_area']:.1f}",
                f"{100 * found['randomized_area']:.1f}",
                *(f"{found[kind][b]:.2f}" for kind in ("deletion", "insertion") for b in found[kind]),
                "passes" if found["passes"] else "; ".join(found["reasons"]),
            ]
        )
    baselines = list(next(iter(methods.values()))["deletion"])
    flips = [f"{kind}, {b}" for kind in ("deletion", "insertion") for b in baselines]
    header = ["method", "shuffled", "of these empty", "random labels", "other class", "most alike control"]
    header += ["IoU area", "IoU area, shuffled", *flips, "verdict"]
    return Table(header, rows, bold_rows=_of_relevant_features(methods))


def _study(studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Section]:
    sections = []
    for name, rows in studies.items():
        best = max(range(len(rows)), key=lambda n: rows[n]["area"])
        columns = {
            "searched": lambda row: row["layers"],
            "response": lambda row: row["measure"],
            "mu": lambda row: f"{row['mu']:g}",
            "features a class": lambda row: f"{row['features_per_class']:.1f}",
            "K": lambda row: row["K"],
            "combined by": lambda row: row["combination"],
            "IoU area": lambda row: f"{100 * row['area']:.1f}",
            "best IoU": lambda row: f"{100 * row['best']:.1f}",
        }
        shown = [[cell(row) for cell in columns.values()] for row in rows]
        sections.append(
            Section(
                f"What decides the rank of the paper's recipe: {name}",
                (),
                (),
                Table(list(columns), shown, bold_rows=[best]),
            )
        )
    return sections


def _overview(cells: Mapping[Key, Sequence[Cell]]) -> Section:
    """One image of each variant and difficulty, by the methods that stand highest with the first network."""
    network = next(iter(cells))[2]
    mine = {f"{key[0]}, {key[1]}": folds[0] for key, folds in cells.items() if key[2] == network}
    ranked = ranked_methods({name: [cell] for name, cell in mine.items()}, "IoU area")
    first = [m for m in (OURS, PAPER) if m in ranked]
    rivals = [m for m in ranked if HINDSIGHT not in m and m not in (*first, CEILING, *CONTROLS)]
    rows = {
        "image": {column: cell.images[-1] for column, cell in mine.items()},
        "true part": {column: cell.masks[-1] for column, cell in mine.items()},
    }
    for method in (*first, *rivals[:_NUM_IN_OVERVIEW]):
        rows[title_of(method)] = {column: cell.maps[method][-1] for column, cell in mine.items()}
    picture = Picture(
        map_sheet(rows),
        f"Our map, the paper's recipe, and the rivals with the largest IoU area; {NETWORKS[network]}.",
        "Images, true parts and heatmaps.",
        "overview",
    )
    return Section("At a glance", (), (picture,))


def _gallery(network: str, cells: Mapping[Key, Sequence[Cell]]) -> Section:
    """The same images beside all methods: a column an image, a row a method."""
    mine = {key: folds[0] for key, folds in cells.items() if key[2] == network}
    order = [m for m in ranked_methods({k: [c] for k, c in mine.items()}, "IoU area") if HINDSIGHT not in m]
    pictures = []
    for variant in dict.fromkeys(key[0] for key in mine):
        rows: dict[str, dict[str, np.ndarray]] = {"image": {}, "true part": {}}
        for (of, difficulty, _), cell in mine.items():
            for n in range(min(2, len(cell.images)) if of == variant else 0):
                column = f"{difficulty} {n + 1}"
                rows["image"][column] = cell.images[n]
                rows["true part"][column] = cell.masks[n]
                for method in order:
                    if method in cell.maps:
                        rows.setdefault(title_of(method), {})[column] = cell.maps[method][n]
        pictures.append(
            Picture(
                map_sheet(rows),
                f"{variant}, {network}: the same images by all methods, the largest mean IoU area first.",
                "Images, true parts and heatmaps.",
                f"gallery-{variant}-{network}",
            )
        )
    return Section(f"Gallery: {NETWORKS[network]}", (), pictures)


def _percent(mean: float, deviation: float | None = None) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if deviation else "")


def _number(score: str, mean: float, deviation: float | None = None) -> str:
    return f"{mean:.2f}" if score == "part-effect correlation" else _percent(mean, deviation)


def _largest(draws: Iterable[Sequence[float | None]]) -> str:
    """The largest of the rank correlations."""
    return _decimal(max((rho for rho, *_ in draws if _is_number(rho)), default=None))


def _most_alike(controls: Mapping[str, Sequence[float | None]]) -> str:
    """The control with the largest rank correlation, and that."""
    known = {name: rho for name, (rho, *_) in controls.items() if _is_number(rho)}
    if not known:
        return "–"
    name = max(known, key=lambda name: known[name])
    return f"{known[name]:.2f} ({title_of(name)})"


def _pair(means: Sequence[float | None]) -> str:
    """Spearman's correlation and SSIM; a dash where too few maps vary."""
    return " / ".join(map(_decimal, means[:2]))


def _decimal(value: float | None) -> str:
    return f"{value:.2f}" if _is_number(value) else "–"


def _is_number(value: float | None) -> TypeGuard[float]:
    """False for NaN, and for `None`, which is NaN in JSON."""
    return value is not None and not np.isnan(value)
