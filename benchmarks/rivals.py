"""The mu-lasso by each solver on the same G, B and mu: seconds, duality gap, support and memory of each.

    python -m benchmarks.rivals                        all cases, in half an hour
    python -m benchmarks.rivals --cases small-30       one of them

`make rivals` sets up the other solvers, in two environments of their own (adelie needs NumPy 1), and runs it.
A solver that is missing is named. Each runs in its own process, which loads the data, solves one class as a
warm-up (a compilation of JAX or Numba is not counted) and then all classes, or as many as it solves in
`--seconds`; the seconds are then those of so many, times the number of classes over them.

Responses are never negative, and mostly zero; those of 400 features of each class are larger in its images,
some more and some less. mu chooses how many of them are found. What differs from solver to solver:

- LARS, celer, skglm and adelie know no bound on the norm: they are given the penalty that ours has found.
- "G not looked at" is `check=False`: the other solvers do not look whether G is finite and symmetric either.
- SPAMS and SPGL1 take the bound itself. SPAMS sets memory aside for a support twice the largest.
- SPGL1 and celer read the responses, as does LassoLars beside G; the others read G and B only.
- Weights whose norm is above mu are scaled to it before the gap is measured.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes, the bound, and whether the weights are to be nonnegative."""

    num_features: int
    num_classes: int
    num_images: int
    mu: float
    nonnegative: bool = True


CASES = {
    "small-3": Case(1500, 10, 6000, 0.02),
    "small-30": Case(1500, 10, 6000, 0.5),
    "small-300": Case(1500, 10, 6000, 1.0, nonnegative=False),
    "medium-3": Case(5696, 100, 12_000, 0.02),
    "medium-30": Case(5696, 100, 12_000, 0.3),
    "medium-300": Case(5696, 100, 12_000, 0.75, nonnegative=False),
    "large-3": Case(12_416, 1000, 16_000, 0.01),
    "large-30": Case(12_416, 1000, 16_000, 0.12),
    "large-300": Case(12_416, 1000, 16_000, 0.33, nonnegative=False),
    # what grows with the number of features, of images, of classes
    "features-750": Case(750, 10, 6000, 0.5),
    "features-3000": Case(3000, 10, 6000, 0.5),
    "images-3000": Case(1500, 10, 3000, 0.5),
    "images-12000": Case(1500, 10, 12_000, 0.5),
    "classes-100": Case(1500, 100, 6000, 0.1),
}
SOLVERS = (
    "ours, host",
    "ours, host, G not looked at",
    "ours, device",
    "SPAMS",
    "adelie",
    "skglm",
    "celer",
    "lars_path_gram",
    "LassoLars",
    "SPGL1",
)
COMPILED = ("ours, host", "ours, host, G not looked at", "ours, device", "skglm")  # with a warm-up


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    cases: tuple[str, ...] = tuple(CASES)
    solvers: tuple[str, ...] = SOLVERS
    seconds: float = 20.0  # for each solver and case; one class is solved however long it takes
    limit: float = 300.0  # seconds after which a solver is stopped, with its loading and its compilations
    python: str = ".venv-rivals/bin/python"
    python_of_adelie: str = ".venv-adelie/bin/python"
    out: Path | None = None  # file for rows of JSON, one a solver and case
    folder: Path | None = None  # where the data are kept; a temporary one if left out


def main(config: Config) -> None:
    """Prints a table of each case."""
    from vexplain._text import aligned

    header = ["solver", "classes", "s, all classes", "s, a class", "gap", "support", "memory, GB"]
    for name in config.cases:
        print(f"{name}: {CASES[name]}", flush=True)
        shown = []
        for row in comparison(config, name):
            shown.append(_shown(row, CASES[name].num_classes))
            if config.out is not None:
                with config.out.open("a") as file:
                    file.write(json.dumps({"case": name} | row) + "\n")
        print(aligned(header, shown), "\n", flush=True)


def comparison(config: Config, name: str) -> Iterator[dict[str, Any]]:
    """Yields a row a solver; with "error" where it is missing or failed."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.folder or Path(temporary)
        data = folder / f"{case.num_features}-{case.num_classes}-{case.num_images}"
        if not (data / "counts.npy").exists():
            data.mkdir(parents=True)
            _write(data, case)
        # The penalties that most of the others need are those that ours finds.
        solvers = ["ours, host", *(solver for solver in config.solvers if solver != "ours, host")]
        for solver in solvers:
            ours, adelie = solver.startswith("ours"), solver == "adelie"
            python = sys.executable if ours else config.python_of_adelie if adelie else config.python
            task = {"solver": solver, "data": str(data), "seconds": config.seconds} | dataclasses.asdict(case)
            limit = config.limit * (5 if solver == "ours, host" else 1)  # it solves all classes in any case
            yield {"solver": solver} | _in_process(python, task, limit)


def _in_process(python: str, task: dict[str, Any], limit: float) -> dict[str, Any]:
    if not Path(python).exists():
        return {"error": f"not installed ({python})"}
    command = [python, "-m", "benchmarks.rivals", "--task", json.dumps(task)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {limit:g} s"}
    if ended.returncode:
        return {"error": ended.stderr.strip().rpartition("\n")[2][:100] or f"exit {ended.returncode}"}
    return json.loads(ended.stdout.strip().rpartition("\n")[2])


def _shown(row: dict[str, Any], num_classes: int) -> list[str]:
    if "error" in row:
        return [row["solver"], row["error"], *[""] * 5]
    a_class = row["seconds"] / row["classes"]
    figures = (a_class * num_classes, a_class, row["gap"], row["support"], row["memory"])
    return [row["solver"], str(row["classes"]), *(f"{figure:.3g}" for figure in figures)]


def draw(case: Case, *, seed: int = 0, num_causes: int = 64, num_planted: int = 400) -> tuple[Any, Any]:
    """Responses (images, features) and classes, with the same number of images in each class."""
    rng, (m, count) = np.random.default_rng(seed), (case.num_features, case.num_images)
    causes = rng.standard_normal((count, num_causes), dtype=np.float32)
    responses = causes @ (rng.standard_normal((num_causes, m), dtype=np.float32) / np.sqrt(num_causes))
    responses += 2 * rng.standard_normal((count, m), dtype=np.float32)
    responses -= 5
    np.maximum(responses, 0, out=responses)
    labels = rng.permutation(np.arange(count) % case.num_classes)
    strengths = 2 / np.sqrt(1 + np.arange(num_planted) / 30)
    for label in range(case.num_classes):
        rows, planted = np.flatnonzero(labels == label), rng.choice(m, num_planted, replace=False)
        more = strengths * rng.gamma(1.0, size=(len(rows), num_planted))
        responses[np.ix_(rows, planted)] += more.astype(np.float32)
    return responses, labels


def _write(folder: Path, case: Case) -> None:
    responses, labels = draw(case)
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=case.num_classes)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    np.save(folder / "responses.npy", responses)
    np.save(folder / "labels.npy", labels)
    exact = responses.astype(np.float64)
    np.save(folder / "cross.npy", np.ascontiguousarray(np.add.reduceat(exact[order], starts).T))
    np.save(folder / "gram.npy", exact.T @ exact)
    np.save(folder / "counts.npy", counts.astype(np.float64))


class Problem:
    """What a solver is given; arrays are read when they are first asked for."""

    def __init__(self, task: dict[str, Any]):
        self.folder = Path(task["data"])
        self.mu, self.nonnegative = task["mu"], task["nonnegative"]
        self.name = f"{self.mu}-{self.nonnegative}"

    def __getattr__(self, name: str) -> np.ndarray:
        value = np.load(self.folder / f"{name}.npy")
        setattr(self, name, value)
        return value

    @property
    def known(self) -> Any:
        """Penalties and supports that ours has found."""
        return np.load(self.folder / f"found-{self.name}.npz")

    def indicator(self, label: int) -> np.ndarray:
        return (self.labels == label).astype(np.float64)


def ours(problem: Problem, solver: str, check: bool = True) -> Callable[[Sequence[int]], np.ndarray]:
    from vexplain.relevance import mu_lasso

    gram, cross, counts = problem.gram, problem.cross, problem.counts

    def solve(labels: Sequence[int]) -> np.ndarray:
        options = {"mu": problem.mu, "nonnegative": problem.nonnegative, "solver": solver}
        options["check"] = check
        found = mu_lasso(gram, cross[:, labels], counts[labels], **options)
        if len(labels) == len(counts) and solver == "host" and check:
            support = (found.weights != 0).sum(0)
            file = problem.folder / f"found-{problem.name}.npz"
            np.savez(file, penalties=found.penalties, support=support)
        return found.weights

    return solve


def spams(problem: Problem) -> Callable[[Sequence[int]], np.ndarray]:
    import spams as library

    gram, cross = np.asfortranarray(problem.gram), np.asfortranarray(problem.cross)
    longest = min(len(gram), 2 * int(problem.known["support"].max()) + 10)
    options = {"lambda1": problem.mu, "mode": 0, "pos": problem.nonnegative, "L": longest, "numThreads": -1}

    def solve(labels: Sequence[int]) -> np.ndarray:
        images = np.zeros((longest, len(labels)), order="F")  # only their norms count where G and B are given
        images[0] = np.sqrt(problem.counts[labels])
        found = library.lasso(images, Q=gram, q=np.asfortranarray(cross[:, labels]), **options)
        return found.toarray()

    return solve


def adelie(problem: Problem) -> Callable[[Sequence[int]], np.ndarray]:
    import adelie as library

    gram, cross, penalties = np.asfortranarray(problem.gram), problem.cross, problem.known["penalties"]
    bounds = [library.constraint.lower(np.zeros(1)) for _ in gram] if problem.nonnegative else None
    options = {"tol": 1e-12, "early_exit": False, "progress_bar": False, "n_threads": 2}

    def one(label: int) -> np.ndarray:
        path, linear = np.array([penalties[label] / 2]), np.ascontiguousarray(cross[:, label])
        state = library.solver.gaussian_cov(gram, linear, constraints=bounds, lmda_path=path, **options)
        return np.asarray(state.betas.todense()).ravel()

    return _each(one)


def skglm(problem: Problem) -> Callable[[Sequence[int]], np.ndarray]:
    from skglm.datafits import QuadraticHessian
    from skglm.penalties import L1
    from skglm.solvers import AndersonCD
    from skglm.utils.jit_compilation import compiled_clone

    gram, cross, penalties = np.asfortranarray(problem.gram), problem.cross, problem.known["penalties"]
    datafit, scale = compiled_clone(QuadraticHessian()), problem.counts[0]

    def one(label: int) -> np.ndarray:
        penalty = compiled_clone(L1(penalties[label] / 2, problem.nonnegative))
        solver = AndersonCD(fit_intercept=False, tol=1e-9 * scale, max_iter=200)
        return solver.solve(gram, -np.ascontiguousarray(cross[:, label]), datafit, penalty)[0]

    return _each(one)


def celer(problem: Problem) -> Callable[[Sequence[int]], np.ndarray]:
    import celer as library

    responses, penalties = np.asfortranarray(problem.responses, np.float64), problem.known["penalties"]

    def one(label: int) -> np.ndarray:
        alpha, indicator = penalties[label] / (2 * len(responses)), problem.indicator(label)
        options = {"positive": problem.nonnegative, "fit_intercept": False, "tol": 1e-8}
        return library.Lasso(alpha, **options).fit(responses, indicator).coef_

    return _each(one)


def lars_path_gram(problem: Problem) -> Callable[[Sequence[int]], np.ndarray]:
    from sklearn.linear_model import lars_path_gram as library

    gram, cross, penalties = problem.gram, problem.cross, problem.known["penalties"]
    count = int(problem.counts.sum())
    options = {"n_samples": count, "method": "lasso", "return_path": False, "max_iter": 10_000}

    def one(label: int) -> np.ndarray:
        alpha = penalties[label] / (2 * count)
        return library(cross[:, label], gram, alpha_min=alpha, positive=problem.nonnegative, **options)[2]

    return _each(one)


def lasso_lars(problem: Problem) -> Callable[[Sequence[int]], np.ndarray]:
    from sklearn.linear_model import LassoLars

    gram, responses = problem.gram, problem.responses.astype(np.float64)
    penalties = problem.known["penalties"]
    options = {"fit_intercept": False, "precompute": gram, "max_iter": 10_000}

    def one(label: int) -> np.ndarray:
        alpha = penalties[label] / (2 * len(responses))
        found = LassoLars(alpha=alpha, positive=problem.nonnegative, **options)
        return found.fit(responses, problem.indicator(label)).coef_

    return _each(one)


def spgl1(problem: Problem) -> Callable[[Sequence[int]], np.ndarray]:
    import spgl1 as library

    responses, options = problem.responses.astype(np.float64), {}
    if problem.nonnegative:
        options = {
            "project": library.norm_l1nn_project,
            "primal_norm": library.norm_l1nn_primal,
            "dual_norm": library.norm_l1nn_dual,
        }

    def one(label: int) -> np.ndarray:
        limits = {"opt_tol": 1e-7, "dec_tol": 1e-12, "iter_lim": 20_000}
        return library.spgl1(responses, problem.indicator(label), tau=problem.mu, **limits, **options)[0]

    return _each(one)


def _each(one: Callable[[int], np.ndarray]) -> Callable[[Sequence[int]], np.ndarray]:
    return lambda labels: np.stack([one(label) for label in labels], axis=1)


PREPARED: dict[str, Callable[[Problem], Callable[[Sequence[int]], np.ndarray]]] = {
    "ours, host": lambda problem: ours(problem, "host"),
    "ours, host, G not looked at": lambda problem: ours(problem, "host", check=False),
    "ours, device": lambda problem: ours(problem, "device"),
    "SPAMS": spams,
    "adelie": adelie,
    "skglm": skglm,
    "celer": celer,
    "lars_path_gram": lars_path_gram,
    "LassoLars": lasso_lars,
    "SPGL1": spgl1,
}


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Solves with one solver, in this process: seconds of so many classes, gap, support, memory in GB."""
    problem = Problem(task)
    solve = PREPARED[task["solver"]](problem)
    labels = np.arange(task["num_classes"])
    before = _peak()
    if task["solver"] in COMPILED:
        _timed(solve, labels[:1])
    seconds, weights = _timed(solve, labels[:1])
    number = int(np.clip(task["seconds"] / seconds, 1, len(labels)))
    if task["solver"].startswith("ours"):
        number = len(labels)
        if task["solver"] == "ours, device":
            _timed(solve, labels)  # compiles for so many classes
    if number > 1:
        seconds, weights = _timed(solve, labels[:number])
    if number > 1 and seconds < 2:  # the best of five: others may hold the machine
        seconds = min([seconds, *(_timed(solve, labels[:number])[0] for _ in range(4))])
    memory = (_peak() - before) / 2**30
    gaps = _gaps(problem, weights, labels[:number])
    support = float((weights != 0).sum(0).mean())
    return {"classes": number, "seconds": seconds, "memory": memory, "gap": gaps.max(), "support": support}


def _timed(solve: Callable[[Sequence[int]], np.ndarray], labels: Sequence[int]) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    weights = solve(labels)
    return time.perf_counter() - started, weights


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _gaps(problem: Problem, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Duality gaps over the number of images of each class, of weights that keep to the bound."""
    weights = np.maximum(weights, 0) if problem.nonnegative else weights
    norms = np.abs(weights).sum(0)
    weights = weights * np.minimum(1, problem.mu / np.maximum(norms, np.finfo(float).tiny))
    gradient = 2 * (problem.gram @ weights - problem.cross[:, labels])
    steepest = (-gradient if problem.nonnegative else np.abs(gradient)).max(0)
    gaps = (gradient * weights).sum(0) + problem.mu * np.maximum(0, steepest)
    return np.maximum(gaps, 0) / problem.counts[labels]


if __name__ == "__main__":
    if "--task" in sys.argv:
        print(json.dumps(run(json.loads(sys.argv[-1]))))
    else:
        import tyro

        main(tyro.cli(Config, prog="python -m benchmarks.rivals"))
