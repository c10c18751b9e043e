"""The shipped figures: each says who says so, and they agree with each other where one follows from others."""

import pickle

import pytest

from opentrn import hardware
from opentrn.errors import HardwareError
from opentrn.hardware.figure import STATUSES, is_number, unit_of

RECORDS = [
    *hardware.cores(),
    *hardware.chips(),
    *hardware.instances(),
    *hardware.racks(),
    *hardware.gpus(),
    *hardware.regions(),
]


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_every_figure_has_a_status_a_source_and_a_unit(record):
    assert record.figures
    for name, figure in record.figures.items():
        assert figure.status in STATUSES, name
        assert len(figure.source) > 3, name
        if is_number(figure.value):
            assert unit_of(name), name
        if figure.low is not None:
            assert figure.low <= figure.value <= figure.high, name


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_a_figure_reads_as_a_plain_attribute(record):
    for name, figure in record.figures.items():
        assert getattr(record, name) == figure.value == record.figure(name).value == record.get(name)


@pytest.mark.parametrize(
    ("name", "sbuf_mib", "tensor_ghz", "vector_ghz", "scalar_ghz"),
    [("v2", 24, 2.8, 1.12, 1.4), ("v3", 28, 2.4, 0.96, 1.2), ("v4", 32, 2.4, 1.2, 1.2)],
)
def test_cores_are_as_the_architecture_guides_state(name, sbuf_mib, tensor_ghz, vector_ghz, scalar_ghz):
    core = hardware.core(name)
    assert core.sbuf_bytes == sbuf_mib * 2**20
    assert core.psum_bytes == 2 * 2**20
    assert core.psum_num_banks * core.psum_bank_bytes == core.psum_bytes_per_partition
    assert (core.num_partitions, core.gemm_stationary_fmax, core.gemm_moving_fmax) == (128, 128, 512)
    assert (core.tensor_clock_ghz, core.vector_clock_ghz, core.scalar_clock_ghz) == (tensor_ghz, vector_ghz, scalar_ghz)
    assert core.sbuf_usable_bytes_per_partition == core.sbuf_bytes_per_partition - 16 * 1024 - 8


@pytest.mark.parametrize("name", ["v2", "v3", "v4"])
def test_a_cores_peak_is_its_array_times_its_clock(name):
    core = hardware.core(name)
    exact = 2 * core.pe_num_rows * core.pe_num_columns * core.tensor_clock_ghz / 1000
    assert core.peak_tflops("bf16") == pytest.approx(exact, rel=0.01)
    assert core.peak_tflops("fp32") == pytest.approx(exact * core.tensor_rate_fp32_ratio, rel=0.02)
    assert core.peak_tflops("fp8") == pytest.approx(exact * core.tensor_rate_fp8_ratio, rel=0.01)


def test_mx_types_run_at_four_times_bf16_on_trn3_alone():
    assert hardware.core("v4").peak_tflops("mxfp8") == pytest.approx(
        4 * hardware.core("v4").peak_tflops("bf16"), rel=0.01
    )
    with pytest.raises(HardwareError, match="core v3 has no peak for 'mxfp8'; it has bf16"):
        hardware.core("v3").peak_tflops("mxfp8")


@pytest.mark.parametrize("chip", hardware.chips(), ids=repr)
def test_a_chips_memory_is_its_cores_memory(chip):
    # inf1's cores have no published memory of their own.
    if chip.generation >= 2:
        assert chip.core.hbm_gib_per_core * chip.num_cores == chip.hbm_gib
        assert chip.core.hbm_stack_bandwidth_gb_per_s * chip.hbm_stacks == pytest.approx(
            chip.hbm_bandwidth_gb_per_s, rel=0.02
        )
        assert chip.core.sbuf_bytes * chip.num_cores == chip.sbuf_total_mib * 2**20
        assert chip.num_dma_engines == chip.core.num_dma_engines * chip.num_cores
    assert chip.hbm_bytes == chip.hbm_gib * 2**30
    assert chip.logical_cores * chip.lnc_default == chip.num_cores


@pytest.mark.parametrize("instance", hardware.instances(), ids=repr)
def test_an_instances_memory_is_its_accelerators_memory(instance):
    per_accelerator = instance.accelerator.get("hbm_gib") or instance.accelerator.get("hbm_gb")
    total = instance.get("device_memory_gib") or instance.get("device_memory_gb")
    # AWS lists less than the fitted HBM for B200 and B300.
    assert total == pytest.approx(instance.num_accelerators * per_accelerator, rel=0.1)


@pytest.mark.parametrize("name", ["trn2-ultraserver", "trn3-ultraserver-gen1", "trn3-ultraserver-gen2"])
def test_an_ultraserver_is_its_chips(name):
    rack = hardware.rack(name)
    instance = hardware.instance(rack.instance)
    assert rack.num_chips == rack.num_instances * instance.num_accelerators
    assert rack.device_memory_gib == rack.num_chips * rack.chip.hbm_gib
    assert rack.device_bandwidth_gb_per_s == pytest.approx(rack.num_chips * rack.chip.hbm_bandwidth_gb_per_s)
    assert rack.peak_bf16_tflops == pytest.approx(rack.num_chips * rack.chip.peak_bf16_tflops, rel=0.01)
    product = 1
    for size in rack.topology_shape:
        product *= size
    assert product == rack.num_chips


def test_trainium4_is_the_announced_multiples_of_trainium3_and_all_projected():
    trn3, trn4 = hardware.chip("trn3"), hardware.chip("trn4")
    assert trn4.hbm_bandwidth_gb_per_s == 4 * trn3.hbm_bandwidth_gb_per_s
    assert trn4.hbm_gib == 2 * trn3.hbm_gib
    assert trn4.peak_mxfp4_tflops == 6 * trn3.peak_mxfp4_tflops
    assert trn4.peak_mxfp8_tflops == 3 * trn3.peak_mxfp8_tflops
    assert trn4.peak_bf16_tflops == trn3.peak_bf16_tflops
    assert trn4.figure("peak_bf16_tflops").source.startswith("as Trainium3: ")
    statuses = {figure.status for record in (trn4, trn4.core) for figure in record.figures.values()}
    assert statuses <= {"projected", "estimated"}


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("gen2", "trn1"),
        ("gen3", "trn2"),
        ("gen4", "trn3"),
        ("Trainium2", "trn2"),
        ("TRN3", "trn3"),
        ("inferentia2", "inf2"),
        ("inferentia", "inf1"),
    ],
)
def test_chips_answer_to_their_aliases(alias, name):
    assert hardware.chip(alias) is hardware.chip(name)
    assert hardware.chip(name).name == name


def test_chips_and_inf2_have_the_cores_that_aws_states():
    cores = {chip.name: chip.core.name for chip in hardware.chips()}
    assert cores == {"inf1": "v1", "inf2": "v2", "trn1": "v2", "trn2": "v3", "trn3": "v4", "trn4": "v5"}
    assert [core.generation for core in hardware.cores()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["core", "chip", "instance", "rack", "gpu", "region"])
def test_no_two_records_of_a_kind_share_a_name(kind):
    records = [record for record in RECORDS if record.kind == kind]
    names = [name.lower() for record in records for name in {record.name, *record.aliases}]
    assert len(names) == len(set(names))


def test_a_record_passes_through_its_own_function():
    trn2 = hardware.chip("trn2")
    assert hardware.chip(trn2) is trn2
    assert hardware.core(trn2.core) is hardware.core("gen3")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hardware.chip("trn22"), "no chip is called 'trn22': did you mean trn2"),
        (lambda: hardware.chip("h100"), "known chips are inf1, inf2, trn1, trn2, trn3, trn4"),
        (lambda: hardware.core("v9"), "no core is called 'v9': known cores are v1, v2, v3, v4, v5"),
        (lambda: hardware.instance("trn2.48xl"), "did you mean trn2.48xlarge"),
        (lambda: hardware.rack("trn3-ultra"), "no rack is called"),
        (lambda: hardware.gpu("h1000"), "did you mean h100"),
        (lambda: hardware.region("us-east-9"), "did you mean us-east-"),
        (lambda: hardware.find("trn2.48xlrge"), "did you mean trn2.48xlarge"),
        (lambda: hardware.chip(""), "no chip is called ''"),
    ],
)
def test_an_unknown_name_is_answered_with_what_is_close(call, message):
    with pytest.raises(HardwareError) as raised:
        call()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unpublished_figure_is_an_error_that_says_so():
    trn1 = hardware.chip("trn1")
    with pytest.raises(HardwareError, match="chip trn1 has no figure 'tdp_w' in trn1.toml"):
        _ = trn1.tdp_w
    assert not hasattr(trn1, "tdp_w")
    assert trn1.get("tdp_w") is None
    with pytest.raises(HardwareError, match="did you mean psum_bank_bytes"):
        hardware.core("v3").figure("psum_bank_byte")


def test_a_record_cannot_be_changed():
    with pytest.raises(AttributeError):
        hardware.chip("trn2").hbm_gib = 1


def test_records_travel_between_processes():
    trn3 = pickle.loads(pickle.dumps(hardware.chip("trn3")))
    assert trn3.core.sbuf_bytes == hardware.core("v4").sbuf_bytes
    assert trn3.figure("hbm_gib") == hardware.chip("trn3").figure("hbm_gib")


def test_find_knows_every_kind():
    kinds = {
        hardware.find(name).kind for name in ("trn2", "v3", "trn2.48xlarge", "project-rainier", "h100", "eu-north-1")
    }
    assert kinds == {"chip", "core", "instance", "rack", "gpu", "region"}


def test_regions_share_the_fleets_overhead_and_have_their_own_grid():
    stockholm, mumbai = hardware.region("eu-north-1"), hardware.region("ap-south-1")
    assert stockholm.pue_ratio == mumbai.pue_ratio == 1.14
    assert stockholm.grid_carbon_kg_co2e_per_kwh == 0.008
    assert mumbai.grid_carbon_kg_co2e_per_kwh == 0.708
