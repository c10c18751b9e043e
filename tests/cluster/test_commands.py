"""`trn plan` and `trn claims` from the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opentrn.cli import main
from opentrn.cluster.planning import plan

SMALL = ["plan", "--model", "tinyllama-1.1b", "--tokens", "1e9", "--on", "trn2.48xlarge", "--chips", "4"]


def test_json_on_standard_output_is_all_there_is(capsys):
    assert main([*SMALL, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["candidates"][0]["hardware"] == "trn2.48xlarge"


def test_json_follows_its_schema(capsys):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "plan.schema.json").read_text())
    assert main([*SMALL, "--on", "p5.48xlarge", "--json", "-"]) == 0
    jsonschema.validate(json.loads(capsys.readouterr().out), schema)


def test_the_schema_names_the_fields_of_a_candidate():
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "plan.schema.json").read_text())
    candidate = schema["properties"]["candidates"]["items"]
    shown = plan("tinyllama-1.1b", 1e9, ["trn2.48xlarge"], chips=1).candidates[0].as_json()
    assert set(candidate["properties"]) == set(candidate["required"]) == set(shown)
    assert set(candidate["properties"]["layout"]["properties"]) == set(shown["layout"])
    assert candidate["additionalProperties"] is False


def test_a_page_and_pictures_are_written(tmp_path, capsys):
    paths = {name: tmp_path / name for name in ("plan.html", "cost.png", "pipeline.svg", "memory.png")}
    assert (
        main(
            [
                *SMALL,
                "--on",
                "p5.48xlarge",
                "--html",
                str(paths["plan.html"]),
                "--plot",
                str(paths["cost.png"]),
                "--plot-pipeline",
                str(paths["pipeline.svg"]),
                "--plot-memory",
                str(paths["memory.png"]),
            ]
        )
        == 0
    )
    page = paths["plan.html"].read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert not re.search(r"(src|href)=.?http", page)  # nothing is fetched
    assert paths["cost.png"].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in paths["pipeline.svg"].read_text()
    assert "assumptions of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "p9.48xlarge"], "unknown instance or rack 'p9.48xlarge'"),
        (["--price", "trn2.48xlarge=-3"], "must be positive"),
        (["--plot", "picture.bmp"], ".png, .svg or .pdf"),
        (["--jobs", "0"], "at least 1"),
        (["--json", "no/such/folder/plan.json"], "cannot write"),
        (["--migration-usd", "1000"], "add one with --on"),
        (["--model", "llama3-405b", "--chips", "1"], "fits nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert main([*SMALL, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("trn:")]) == 1


def test_break_even_is_said_in_a_sentence(capsys):
    assert main([*SMALL, "--on", "p5.48xlarge", "--migration-usd", "1000"]) == 0
    assert re.search(r"trn2.48xlarge (saves|costs) .* p5.48xlarge", capsys.readouterr().out)


def test_help_starts_without_the_simulator():
    code = (
        "import sys; from opentrn.cli import main; main(['plan', '--help']); "
        "print([m for m in ('numba', 'numpy', 'matplotlib', 'ray') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_claims_of_published_figures_are_reproduced(capsys):
    ids = ["trn3-rack-compute", "trn3-rack-bandwidth", "trn1-peak", "trn3-gpt-oss", "trn4-fp8"]
    assert main(["claims", *ids, "--json", "-"]) == 0
    claims = {c["id"]: c for c in json.loads(capsys.readouterr().out)["claims"]}
    assert claims["trn3-rack-compute"]["derived_ratio"] == pytest.approx(362.448 / 83.2)
    assert claims["trn3-rack-compute"]["verdict"] == "reproduced"
    assert claims["trn3-rack-bandwidth"]["verdict"] == "reproduced"
    assert claims["trn1-peak"]["verdict"] == "not reproduced"  # 16 x 190 over 8 x 312 is 1.22, not 1.4
    assert claims["trn3-gpt-oss"]["verdict"] == "not decidable"
    assert claims["trn4-fp8"]["derived_ratio"] == 3.0


def test_an_unknown_claim_lists_those_there_are(capsys):
    assert main(["claims", "moon-landing"]) == 1
    assert "unknown claim 'moon-landing', known: trn1-half-cost" in capsys.readouterr().err


def test_an_interrupted_plan_prints_what_it_found(monkeypatch, capsys):
    from opentrn.cluster import search

    real, calls = search._search_shard, []

    def interrupted(*arguments):
        calls.append(arguments[0])
        if len(calls) > 1:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(search, "_search_shard", interrupted)
    assert main(SMALL) == 130
    shown = capsys.readouterr()
    assert "trn2.48xlarge" in shown.out
    assert "interrupted: only part of the layouts was searched" in shown.err
