"""`trn chips`: the tables a person reads and the JSON a program reads say what the records say."""

import json

import pytest

from opentrn import hardware
from opentrn.cli import main


def output(capsys, *arguments):
    assert main(["chips", *arguments]) == 0
    return capsys.readouterr().out


def row(text, name):
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_the_overview_has_a_row_for_each_chip_with_its_headline_figures(capsys):
    text = output(capsys)
    assert row(text, "trn2") == ["trn2", "Trainium2", "v3", "8", "4", "667", "1299", "96", "2900", "1280", "224"]
    assert row(text, "trn3") == ["trn3", "Trainium3", "v4", "8", "4", "671", "2517", "144", "4900", "2560", "256"]
    for chip in hardware.chips():
        assert row(text, chip.name)


def test_the_overview_prices_instances_on_demand_where_that_is_listed(capsys):
    text = output(capsys)
    assert "21.5" in row(text, "trn1.32xlarge") and "demand" in row(text, "trn1.32xlarge")
    assert "35.7608" in row(text, "trn2.48xlarge") and "block" in row(text, "trn2.48xlarge")
    assert "listed" in row(text, "trn2u.48xlarge")


@pytest.mark.parametrize("name", ["trn3", "v1", "trn1.32xlarge", "project-rainier", "h100", "eu-west-1"])
def test_a_name_shows_every_figure_with_its_status_and_source(name, capsys):
    text = output(capsys, name)
    record = hardware.find(name)
    lines = text.splitlines()
    sources = dict(line.strip().split("  ", 1) for line in lines[lines.index("Sources") + 1 :])
    for figure in record.figures.values():
        # A heading may be a figure's name too; the value's own words stand between the name and the status.
        words = next(line.split() for line in lines if line.startswith(f" {figure.name} ") and len(line.split()) > 1)
        assert figure.status in words
        assert sources[words[words.index(figure.status) + 1]] == figure.source


def test_a_chip_shows_its_core_as_well(capsys):
    text = output(capsys, "trn2")
    assert "tensor_clock_ghz" in text and "NeuronCore-v3" in text


def test_json_carries_the_same_figures(capsys):
    content = json.loads(output(capsys, "trn2", "--json"))
    figure = content["figures"]["hbm_bandwidth_gb_per_s"]
    assert (figure["value"], figure["status"]) == (2900, "published")
    assert content["core"]["figures"]["vector_clock_ghz"]["value"] == 0.96
    instance = json.loads(output(capsys, "trn1.32xlarge", "--json"))
    assert {price["usd_per_hour"] for price in instance["prices"]} == {21.5, 9.532, 13.22895}


def test_json_of_the_overview_lists_the_chips(capsys):
    chips = {chip["name"]: chip for chip in json.loads(output(capsys, "--json"))}
    assert set(chips) == {chip.name for chip in hardware.chips()}
    assert chips["trn3"]["hbm_gib"] == 144


def test_a_users_file_is_shown(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "trn2"\ntitle = "Mine"\nhbm_gib = 192\n')
    assert row(output(capsys, "--file", str(path)), "hbm_gib")[:3] == ["hbm_gib", "192", "estimated"]
    assert output(capsys, str(path)) == output(capsys, "--file", str(path))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trn9"], 1, "trn: error: no hardware is called 'trn9': did you mean"),
        (["trn2", "--file", __file__], 2, "Give a name or --file, not both"),
        (["--file", "nowhere.toml"], 2, "File 'nowhere.toml' does not exist"),
        (["nowhere.toml"], 1, "the file cannot be read: No such file"),
    ],
)
def test_bad_input_is_refused(arguments, code, message, capsys):
    assert main(["chips", *arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""
