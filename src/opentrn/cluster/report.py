"""A plan as a page: one HTML file with its tables, pictures and assumptions, that needs nothing else to be read."""

from html import escape

from opentrn.cluster.machines import machine
from opentrn.cluster.pictures import as_svg, frontier_picture, memory_picture, pipeline_picture
from opentrn.cluster.planning import Candidate, Plan
from opentrn.energy.thermal import what_if
from opentrn.hardware import Chip

__all__ = ["plan_html"]

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .7em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child,td.text,th.text{text-align:left}img{max-width:100%}small,li{color:#444}"""


def _table(head: list[str], rows: list[list[str]], text: tuple[int, ...] = (0,)) -> str:
    def cell(tag: str, column: int, value: str) -> str:
        kind = ' class="text"' if column in text else ""
        return f"<{tag}{kind}>{escape(value)}</{tag}>"

    lines = ["<tr>" + "".join(cell("th", i, h) for i, h in enumerate(head)) + "</tr>"]
    lines += ["<tr>" + "".join(cell("td", i, v) for i, v in enumerate(row)) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


def plan_html(plan: Plan, notes: list[str]) -> str:
    """The page; `notes` are sentences (break-even and the like) that stand under the table."""
    simulated = [c for c in plan.candidates if c.found is not None]
    parts = [
        f"<h1>{escape(plan.model)} on {plan.tokens:.3g} tokens</h1>",
        f"<p>Best by {escape(plan.objective)}: {escape(_summary(plan.candidates[0]))}</p>",
        _table(
            [
                "hardware",
                "chips",
                "layout",
                "step (s)",
                "tokens/s",
                "MFU",
                "days",
                "USD",
                "USD/1e9 tokens",
                "MWh",
                "t CO2e",
                "goodput",
            ],
            [
                [
                    c.hardware,
                    str(c.num_chips),
                    _layout(c),
                    f"{c.step_time_s:.3f}",
                    f"{c.tokens_per_s:,.0f}",
                    f"{c.mfu:.1%}",
                    f"{c.time_h / 24:.1f}",
                    f"{c.cost_usd:,.0f}",
                    f"{c.cost_usd / plan.tokens * 1e9:.2f}",
                    f"{c.energy_kwh / 1e3:,.1f}",
                    f"{c.co2_kg / 1e3:,.1f}",
                    f"{c.goodput:.2%}",
                ]
                for c in plan.candidates
            ],
            text=(0, 2),
        ),
        "".join(f"<p>{escape(line)}</p>" for line in (*notes, *plan.warnings)),
        "<h2>Cost against time</h2>",
        as_svg(frontier_picture(plan)),
    ]
    if simulated:
        machines = [machine(c.hardware, c.num_chips) for c in simulated]
        shown = list(zip(simulated, machines, strict=True))[:8]
        parts += [
            "<h2>Memory of the fullest rank</h2>",
            as_svg(memory_picture([c for c, _ in shown], [m.memory_gib_per_rank for _, m in shown])),
        ]
        piped = next(((c, m) for c, m in zip(simulated, machines, strict=True) if c.layout["pp"] > 1), None)
        best = piped or (simulated[0], machines[0])
        parts += ["<h2>One step</h2>", as_svg(pipeline_picture(*best))]
        parts += [_cooling(machines[0].chip)]
    parts.append("<h2>Assumptions</h2>")
    for c in plan.candidates:
        items = "".join(f"<li>{escape(line)}</li>" for line in c.assumptions)
        parts.append(f"<details><summary>{escape(_summary(c))}</summary><ul>{items}</ul></details>")
    body = "\n".join(parts)
    head = f"<meta charset=utf-8><title>{escape(plan.model)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en>{head}{body}</html>\n"


def _layout(c: Candidate) -> str:
    return str(c.found.layout) if c.found else " ".join(f"{axis}{n}" for axis, n in c.layout.items() if n > 1)


def _summary(c: Candidate) -> str:
    return f"{c.num_chips} chips of {c.hardware}, {c.time_h / 24:.1f} days, {c.cost_usd:,.0f} USD ({_layout(c)})"


def _cooling(chip: Chip) -> str:
    rows = [
        [
            f"{o.cooling}, {o.policy}",
            f"{o.junction_c:.0f}",
            f"{o.flow:.0%}",
            f"{o.speed:.0%}",
            f"{o.total_w:.0f}",
            f"{o.w_per_speed:.0f}",
        ]
        for o in what_if(chip, 0.9)
    ]
    return (
        f"<h2>Cooling of a busy {escape(chip.title)}: air against liquid</h2>"
        + _table(
            ["cooling and policy", "junction (C)", "flow", "clock kept", "W at the meter", "W for full-speed work"],
            rows,
        )
        + "<p><small>Estimated figures: no wattage or thermal resistance of these chips is published.</small></p>"
    )
