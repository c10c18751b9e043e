"""Collective curves: time and bus bandwidth against size, one line an operation and algorithm."""

from collections.abc import Sequence
from pathlib import Path

from opentrn.errors import OpenTrnError
from opentrn.fabric.collectives import Estimate

_FORMATS = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Raise OpenTrnError unless a picture can be written to this path."""
    if path.suffix.lower() not in _FORMATS:
        raise OpenTrnError(f"cannot draw {path}; a picture ends in {', '.join(_FORMATS)}")
    if not path.resolve().parent.is_dir():
        raise OpenTrnError(f"cannot draw {path}: there is no folder {path.parent}")


def plot_collectives(estimates: Sequence[Estimate], path: Path | str, title: str = "") -> None:
    """Draw estimates (any number of operations, rank counts and algorithms) to a .png, .svg or .pdf file."""
    path = Path(path)
    check_picture(path)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise OpenTrnError('pictures need matplotlib; install "opentrn[plots]"') from None
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    time_axes, bandwidth_axes = figure.subplots(1, 2)
    series: dict[tuple[str, int], list[Estimate]] = {}
    for estimate in estimates:
        series.setdefault((estimate.op, estimate.ranks), []).append(estimate)
    colours: dict[str, str] = {}
    for (op, ranks), points in series.items():
        points.sort(key=lambda point: point.size_bytes)
        line = f"{op}, {ranks} ranks"
        sizes = [point.size_bytes for point in points]
        for axes, values in (
            (time_axes, [point.latency_us for point in points]),
            (bandwidth_axes, [point.busbw_gb_per_s for point in points]),
        ):
            (drawn,) = axes.plot(sizes, values, linewidth=1.2, label=line)
            for algorithm in dict.fromkeys(point.algorithm for point in points):
                chosen = [index for index, point in enumerate(points) if point.algorithm == algorithm]
                colour = colours.setdefault(algorithm, f"C{len(colours) % 10}")
                axes.plot(
                    [sizes[index] for index in chosen],
                    [values[index] for index in chosen],
                    "o",
                    markersize=4,
                    color=colour,
                    label=f"  {algorithm}" if axes is time_axes else None,
                )
            drawn.set_color("0.35")
    for axes, label in ((time_axes, "time (us)"), (bandwidth_axes, "bus bandwidth (GB/s)")):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("size (bytes)")
        axes.set_ylabel(label)
        axes.xaxis.set_major_formatter(lambda value, _: _size_label(value))
        axes.tick_params(axis="x", labelsize=8, rotation=30)
        axes.grid(True, which="major", linewidth=0.4, alpha=0.6)
    time_axes.set_yscale("log")
    time_axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    # Equal pictures for equal inputs: no date, fixed identifiers in SVG.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "opentrn"}):
        try:
            figure.savefig(path, dpi=150, metadata=metadata)
        except OSError as problem:
            raise OpenTrnError(f"cannot write {path}: {problem.strerror}") from None


def _size_label(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size_bytes < 1024:
            return f"{size_bytes:g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:g} PiB"
