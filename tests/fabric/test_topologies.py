"""Topologies against published counts, and routes against shortest paths of an independent graph library."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentrn.errors import HardwareError, OpenTrnError
from opentrn.fabric import topology, topology_graph, topology_names, torus
from opentrn.fabric.catalogue import fabric_files, plain, runtime_table
from opentrn.fabric.graph import cut_bandwidth_gb_per_s, diameter_hops
from opentrn.fabric.network import NO_LINK, Network


@pytest.mark.parametrize(
    "name, chips, ranks",
    [
        ("trn1.32xlarge", 16, 32),
        ("inf2.48xlarge", 12, 24),
        ("trn2.48xlarge", 16, 64),
        ("trn2-ultraserver", 64, 256),
        ("trn3-ultraserver-gen1", 64, 256),
        ("trn3-ultraserver", 144, 576),
        ("p5.48xlarge", 8, 8),
        ("torus-16x16x16", 4096, 4096),
    ],
)
def test_topologies_have_the_published_number_of_chips_and_logical_cores(name, chips, ranks):
    assert (topology(name).num_chips, topology(name).num_ranks) == (chips, ranks)


def test_rainier_has_about_half_a_million_chips():
    assert topology("rainier").num_chips == pytest.approx(500_000, rel=0.001)


def test_lnc_1_doubles_the_ranks_of_a_trn2_chip_and_halves_their_dma_engines():
    one, two = topology("trn2.48xlarge", cores_per_rank=1), topology("trn2.48xlarge")
    assert one.num_ranks == 2 * two.num_ranks
    assert one.rank_dma_gb_per_s == two.rank_dma_gb_per_s / 2


def test_device_0_of_a_trn2_instance_is_linked_to_1_3_4_and_12():
    """As neuron-ls prints it."""
    graph = topology_graph(topology("trn2.48xlarge"))
    assert sorted(graph.neighbors(0)) == [1, 3, 4, 12]


def test_every_chip_of_the_trn2_ultraserver_has_four_neighbours_inside_and_two_between_instances():
    graph = topology_graph(topology("trn2-ultraserver"))
    assert {graph.degree(chip) for chip in range(64)} == {6}
    assert graph.num_edges() == 64 * 6 // 2


def test_chip_bandwidth_adds_up_to_the_published_totals_both_ways():
    trn2 = topology("trn2-ultraserver")
    efficiency = 0.8
    x, y, z = (2 * 2 * axis.bandwidth_gb_per_s / efficiency for axis in trn2.axes[1:])
    assert x + y == pytest.approx(1024)
    assert z == pytest.approx(256)


def test_diameters_are_those_of_tori_and_switch_trees():
    assert diameter_hops(topology("trn2.48xlarge")) == 4
    assert diameter_hops(topology("trn2-ultraserver")) == 6
    assert diameter_hops(topology("trn3-server")) == 2
    assert diameter_hops(topology("trn3-ultraserver")) == 3  # the other rack: its switch's two links and the cable


def test_bisection_of_the_ultraserver_is_two_planes_of_z_links():
    on = topology("trn2-ultraserver")
    assert cut_bandwidth_gb_per_s(on) == pytest.approx(2 * 16 * on.axes[3].bandwidth_gb_per_s)


@given(st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple))
def test_routes_on_a_torus_are_shortest_paths(shape):
    import rustworkx

    on = torus(shape)
    source, target = (side.reshape(-1) for side in np.meshgrid(np.arange(on.num_chips), np.arange(on.num_chips)))
    links, _ = Network(on).routes(source, target)
    hops = (links != NO_LINK).sum(axis=1) if links.size else np.zeros(len(source))
    distances = rustworkx.distance_matrix(topology_graph(on))
    assert np.array_equal(hops, distances[source, target])


def test_routes_to_another_server_of_a_rack_skip_the_server_switch():
    network = Network(topology("trn3-ultraserver"))
    source, target = np.array([0]), np.array([4 * 4 + 4 * 3])  # chip 0 to chip 7: server 1, position 3
    links, _ = network.routes(source, target)
    used = links[0][links[0] != NO_LINK]
    assert len(used) == 2
    assert all(network.first_link[1] <= link < network.first_link[2] for link in used)


def test_neighbouring_members_of_a_ring_axis_use_different_links():
    network = Network(topology("trn2.48xlarge"))
    ranks = 4 * np.arange(4)
    forward, _ = network.routes(ranks, 4 * ((np.arange(4) + 1) % 4))
    backward, _ = network.routes(ranks, 4 * ((np.arange(4) - 1) % 4))
    assert len(set(forward.ravel()) | set(backward.ravel())) == 8


def test_every_figure_has_a_status_and_every_calibrated_one_names_its_rows():
    figures = [figure for file in fabric_files() for figure in file.figures()]
    for name in ("neuron-2023", "neuron-2025", "nccl", "bucket"):
        figures += runtime_table(name)[1]
    assert len(figures) > 100
    for figure in figures:
        assert figure.status in ("published", "derived", "calibrated", "projected", "estimated"), figure
        assert figure.source, figure
        if figure.status == "calibrated" and figure.value not in (0, 1, 1.0):
            assert "row" in figure.source, figure


def test_topologies_are_the_same_object_for_the_same_arguments_and_survive_pickling():
    import pickle

    on = topology("trn2-ultraserver")
    assert topology("trn2-ultraserver") is on
    copy = pickle.loads(pickle.dumps(on))
    assert copy.axes == on.axes and copy.num_ranks == on.num_ranks


def test_a_fabric_file_of_ones_own_works_by_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'status = "projected"\nsource = "me"\n'
        "[link.wire]\nbandwidth_gb_per_s = 100\nlatency_us = 1\nrouted_hop_us = 0\nefficiency_ratio = 1\n"
        '[chip.mine]\nlink = "wire"\nnum_cores = 2\ncores_per_rank = 1\ndma_bandwidth_gb_per_s = 1000\n'
        '[topology.mine]\nchip = "mine"\nruntime = "neuron-2025"\n'
        'axes = [{ name = "x", kind = "ring", size = 5, link = "wire" }]\n'
    )
    assert topology(str(path)).num_ranks == 10


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: topology("trn9"), "unknown instance"),
        (lambda: topology("inf2.48xlarge", 2), "no network"),
        (lambda: topology("torus-4xfour"), "not a torus"),
        (lambda: topology("torus-4x0"), "positive"),
        (lambda: topology("trn2.48xlarge", 0), "at least 1"),
        (lambda: topology("trn2.48xlarge", cores_per_rank=3), "1 or 2 cores"),
        (lambda: topology("nowhere.toml"), "no fabric file"),
        (lambda: topology("trn2", collectives="mpi"), "unknown collective runtime"),
    ],
)
def test_bad_topologies_are_refused_in_one_sentence(call, message):
    with pytest.raises((HardwareError, OpenTrnError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_all_names_load():
    assert all(topology(name).num_ranks for name in topology_names())


def test_every_instance_and_rack_of_the_hardware_data_has_its_fabric():
    from opentrn.hardware import instances, racks

    known = [record for record in instances() if record.name.startswith(("trn", "inf2", "p"))]
    for record in known:
        assert topology(record.name).num_chips == record.num_accelerators, record.name
    for record in racks():
        assert topology(record.name).num_chips == pytest.approx(record.num_chips, rel=0.001), record.name


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(HardwareError, match="did you mean trn2-ultraserver"):
        topology("trn2-ultra-server")


def test_links_and_engines_are_those_of_the_chip_data():
    """The fabric files hold one direction; the chip files hold what AWS prints, both directions for NeuronLink."""
    from opentrn.hardware import chip

    links = {name: link for file in fabric_files() for name, link in file.tables.get("link", {}).items()}
    engines = {name: table for file in fabric_files() for name, table in file.tables.get("chip", {}).items()}

    def bandwidth(name):
        return links[name]["bandwidth_gb_per_s"]["value"]

    assert 2 * bandwidth("neuronlink-v2") == chip("trn1").link_gb_per_s
    assert 2 * bandwidth("neuronlink-v3") == chip("trn2").link_torus_gb_per_s
    assert 2 * bandwidth("neuronlink-v3-z") == chip("trn2").link_z_gb_per_s
    assert bandwidth("neuronswitch-server") == chip("trn3").link_server_gb_per_s
    assert bandwidth("neuronswitch-rack") == chip("trn3").link_rack_gb_per_s
    assert bandwidth("neuronlink-v4-rack") == chip("trn3").link_inter_rack_gb_per_s
    for generation in ("2", "3"):
        assert 8 * bandwidth(f"efa-trn{generation}") == chip(f"trn{generation}").efa_gbps
    for name, record in (("trainium", "trn1"), ("trainium2", "trn2"), ("trainium3", "trn3")):
        assert plain(engines[name]["num_cores"]) == chip(record).num_cores


def test_the_closed_form_needs_no_compiler_plotting_or_graph_library():
    import subprocess
    import sys

    code = (
        "import sys; from opentrn.fabric import collective_time_us; collective_time_us('all_reduce', 1e6, 64, 'trn2');"
        "print([name for name in ('numba', 'matplotlib', 'rustworkx', 'torch', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
