"""A user's own chip is a TOML file: it may start from one of ours, and mistakes in it are named."""

import os

import pytest

from opentrn import hardware
from opentrn.errors import HardwareError


def write(path, text):
    path.write_text(text)
    return path


def test_a_file_changes_what_it_names_and_keeps_the_rest(tmp_path):
    path = write(tmp_path / "big.toml", 'extends = "trn2"\ntitle = "Trn2 with twice the HBM"\nhbm_gib = 192\n')
    big, trn2 = hardware.chip(path), hardware.chip("trn2")
    assert (big.name, big.title, big.hbm_gib) == ("big", "Trn2 with twice the HBM", 192)
    assert big.hbm_bandwidth_gb_per_s == trn2.hbm_bandwidth_gb_per_s
    assert big.core is trn2.core
    assert (big.figure("hbm_gib").status, big.figure("hbm_gib").source) == ("estimated", str(path))
    assert big.figure("num_cores") == trn2.figure("num_cores")


def test_a_file_multiplies_a_figure_of_its_base(tmp_path):
    path = write(tmp_path / "fast.toml", 'extends = "trn3"\nhbm_bandwidth_gb_per_s = { times = 1.5 }\n')
    assert hardware.chip(path).hbm_bandwidth_gb_per_s == pytest.approx(1.5 * 4900)


def test_a_file_describes_its_own_core(tmp_path):
    path = write(tmp_path / "sram.toml", 'extends = "trn2"\n[core]\nsbuf_bytes_per_partition = 458752\n')
    chip = hardware.chip(path)
    assert chip.core.sbuf_bytes == 56 * 2**20
    assert chip.core.generation == 3
    assert hardware.chip("trn2").core.sbuf_bytes == 28 * 2**20


def test_a_file_names_another_file(tmp_path):
    write(tmp_path / "core.toml", 'extends = "v3"\ntensor_clock_ghz = 3.0\n')
    write(tmp_path / "first.toml", 'extends = "trn2"\ncore = "core.toml"\n')
    second = write(tmp_path / "second.toml", 'extends = "first.toml"\nnum_cores = 16\n')
    chip = hardware.chip(str(second))
    assert (chip.num_cores, chip.core.tensor_clock_ghz) == (16, 3.0)


def test_a_chip_may_stand_on_its_own(tmp_path):
    path = write(
        tmp_path / "own.toml",
        'core = "v4"\nnum_cores = 2\nhbm_gib = 48\nhbm_bandwidth_gb_per_s = 1200\npeak_bf16_tflops = 158\n'
        '[links]\nstatus = "projected"\nsource = "our architects"\nring_gb_per_s = 100\n',
    )
    chip = hardware.chip(path)
    assert (chip.generation, chip.ring_gb_per_s, chip.hbm_bytes) == (4, 100, 48 * 2**30)
    ring = chip.figure("ring_gb_per_s")
    assert (ring.status, ring.source, ring.group) == ("projected", "our architects", "links")


def test_an_edited_file_is_read_again(tmp_path):
    path = write(tmp_path / "edited.toml", 'extends = "trn2"\nhbm_gib = 1\n')
    assert hardware.chip(path) is hardware.chip(path)
    assert hardware.chip(path).hbm_gib == 1
    write(path, 'extends = "trn2"\nhbm_gib = 2\n')
    os.utime(path, ns=(1, 1))
    assert hardware.chip(path).hbm_gib == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "core = 'v4'\nnum_cores = 2\n",
            "lacks hbm_gib, hbm_bandwidth_gb_per_s, peak_bf16_tflops; add them, or start from",
        ),
        ("num_cores = 2\n", "lacks core"),
        ("extends = 'trn9'\n", "extends: no chip is called 'trn9': did you mean"),
        ("extends = 3\n", "extends must be the name of a chip, not 3"),
        ("extends = 'trn2'\ncore = 'v9'\n", "core: no core is called 'v9'"),
        (
            "extends = 'trn2'\nhbm_bandwidth_tb_per_s = 3.5\n",
            "is known as hbm_bandwidth_gb_per_s; give the figure in that unit",
        ),
        ("extends = 'trn2'\nhbm_bandwith_gb_per_s = 3500\n", "did you mean hbm_bandwidth_gb_per_s"),
        ("extends = 'trn2'\nmagic = 3\n", "magic does not say its unit"),
        ("extends = 'trn2'\nnum_cores = 2.5\n", "num_cores must be a whole number, not 2.5"),
        ("extends = 'trn2'\nhbm_gib = -1\n", "hbm_gib must be a number, not -1"),
        ("extends = 'trn2'\nhbm_gib = 'much'\n", "hbm_gib must be a number, not 'much'"),
        ("extends = 'trn2'\nlnc_sizes = 2\n", "lnc_sizes must be a list of whole numbers, not 2"),
        ("extends = 'trn2'\nhbm_gib = { value = 1, statsu = 'published' }\n", "hbm_gib has statsu; a figure has"),
        ("extends = 'trn2'\nhbm_gib = { note = 'x' }\n", "hbm_gib has note and no value"),
        ("extends = 'trn2'\nhbm_gib = { value = 1, status = 'sure' }\n", "status 'sure'; use one of published"),
        ("extends = 'trn2'\nring_gb_per_s = { times = 2 }\n", "the record it extends has no such number"),
        ("extends = 'trn2'\nhbm_bytes = 5\n", "hbm_bytes cannot be set"),
        ("extends = 'trn2'\nname = 'x'\n", "name cannot be set"),
        (
            "extends = 'trn2'\n[memory]\nhbm_gib = 1\n[other]\nhbm_gib = 2\n",
            r"given twice, under \[memory\] and \[other\]",
        ),
        ("extends = 'trn2'\ndrops = ['nonsense']\n", "drops names nonsense, which chip trn2 does not have"),
        ("inherited = 'projected'\ncore = 'v4'\n", "need extends"),
        ("extends = 'trn2'\nHBM = 1\n", "'HBM' is not a figure's name"),
        ("extends = 'trn2\n", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(tmp_path, text, message):
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(HardwareError, match=message) as raised:
        hardware.chip(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_figure_whose_digits_alone_differ_from_a_known_one_is_a_new_figure(tmp_path):
    path = write(tmp_path / "fp6.toml", 'extends = "trn3"\npeak_fp6_tflops = 2000\n')
    assert hardware.chip(path).peak_tflops("fp6") == 2000


def test_a_mistake_in_the_files_own_core_is_named(tmp_path):
    path = write(tmp_path / "bad.toml", 'extends = "trn2"\n[core]\nsbuf_kib_per_partition = 448\n')
    with pytest.raises(HardwareError, match="sbuf_kib_per_partition is known as sbuf_bytes_per_partition"):
        hardware.chip(path)


def test_a_circle_of_files_is_found(tmp_path):
    write(tmp_path / "a.toml", 'extends = "b.toml"\n')
    write(tmp_path / "b.toml", 'extends = "a.toml"\n')
    with pytest.raises(HardwareError, match="extends leads back to the file itself"):
        hardware.chip(tmp_path / "a.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(HardwareError, match="nowhere.toml: the file cannot be read: No such file"):
        hardware.chip(tmp_path / "nowhere.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HardwareError, match="binary.toml: the file cannot be read: it is not text in UTF-8"):
        hardware.chip(binary)
