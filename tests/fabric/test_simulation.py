"""The message-level simulation and the closed forms: two independent accounts of the same algorithms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentrn.errors import OpenTrnError
from opentrn.fabric import RankGroup, collective_time_us, simulate, topology, torus

SIZES = (1e4, 1e6, 64e6)


def closed(op, size, group, on, algorithm="auto"):
    return collective_time_us(op, size, group, on, algorithm=algorithm, siblings=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ["ring", "kangaring"])
@pytest.mark.parametrize("name, ranks", [("trn2.48xlarge", 64), ("trn2-ultraserver", 256), ("trn2.3xlarge", 4)])
def test_rings_agree_with_their_closed_form_within_10_percent(name, ranks, algorithm, size):
    on = topology(name)
    assert simulate("all_reduce", size, ranks, on, algorithm=algorithm).time_us == pytest.approx(
        closed("all_reduce", size, ranks, on, algorithm), rel=0.1
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name, ranks", [("trn2.48xlarge", 64), ("trn2-ultraserver", 256), ("trn3-ultraserver", 576)])
@pytest.mark.parametrize("algorithm", ["mesh", "torus"])
def test_mesh_and_torus_agree_with_their_closed_form_within_15_percent(name, ranks, algorithm, size):
    on = topology(name)
    assert simulate("all_reduce", size, ranks, on, algorithm=algorithm).time_us == pytest.approx(
        closed("all_reduce", size, ranks, on, algorithm), rel=0.15
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name, ranks", [("trn2.48xlarge", 64), ("trn2.48xlarge", 8), ("trn2-ultraserver", 256)])
def test_recursive_halving_agrees_with_its_closed_form_within_20_percent(name, ranks, size):
    on = topology(name)
    assert simulate("all_reduce", size, ranks, on, algorithm="rdh").time_us == pytest.approx(
        closed("all_reduce", size, ranks, on, "rdh"), rel=0.2
    )


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_reduce"])
@pytest.mark.parametrize("size", SIZES)
def test_hierarchical_collectives_over_four_instances_agree_within_20_percent(op, size):
    on = topology("trn2.48xlarge", 4)
    found = simulate(op, size, 256, on)
    assert found.algorithm.startswith("hier(")
    assert found.time_us == pytest.approx(closed(op, size, 256, on), rel=0.2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ranks, instances", [(2, 1), (32, 1), (64, 2)])
def test_the_flat_ring_of_trn1_agrees_within_15_percent(ranks, instances, size):
    on = topology("trn1.32xlarge", instances)
    assert simulate("all_reduce", size, ranks, on).time_us == pytest.approx(
        closed("all_reduce", size, ranks, on), rel=0.15
    )


@given(
    shape=st.lists(st.integers(3, 6), min_size=1, max_size=3),
    size=st.floats(1e3, 1e9),
    bandwidth=st.floats(10, 500),
    latency=st.floats(0.1, 5),
)
@settings(max_examples=25)
def test_a_cubic_torus_all_reduce_takes_exactly_the_bucket_formula(shape, size, bandwidth, latency):
    """On equal sides no two messages meet: 2 x (sum of steps x hop) + 2 x S / (2 d B) x (1 - 1/N), by hand."""
    side, dimensions = shape[0], len(shape)
    on = torus((side,) * dimensions, link_bandwidth_gb_per_s=bandwidth, latency_us=latency)
    num_chips = side**dimensions
    expected = 2 * dimensions * (side - 1) * latency
    expected += 2 * size / (2 * dimensions * bandwidth * 1e3) * (1 - 1 / num_chips)
    assert simulate("all_reduce", size, num_chips, on, algorithm="torus").time_us == pytest.approx(expected, rel=1e-9)


def test_a_message_between_neighbours_takes_launch_step_link_and_bytes():
    on = topology("trn2.48xlarge")
    group = RankGroup.of([0, 4])  # first cores of chips 0 and 1
    runtime, axis = on.runtime, on.axes[1]
    slowest = min(on.peer_bandwidth_gb_per_s, axis.bandwidth_gb_per_s) * 1e3
    expected = runtime.launch_us + runtime.step_us + runtime.message_us + axis.latency_us + 4e6 / slowest
    assert simulate("send_recv", 4e6, group, on).time_us == pytest.approx(expected, rel=1e-9)


def test_groups_that_share_links_slow_each_other_and_groups_that_do_not_run_as_if_alone():
    on = topology("trn2.48xlarge")
    column = [RankGroup(4, stride=16, start=core) for core in range(4)]  # four cores of the same four chips
    alone = simulate("all_reduce", 64e6, column[0], on, algorithm="mesh").time_us
    assert simulate("all_reduce", 64e6, column, on, algorithm="mesh").time_us > 2 * alone
    rows = [RankGroup(16, start=16 * row) for row in range(4)]  # four rows of chips
    alone = simulate("all_reduce", 64e6, rows[0], on, algorithm="mesh").time_us
    assert simulate("all_reduce", 64e6, rows, on, algorithm="mesh").time_us == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("size", [1e5, 64e6])
@pytest.mark.parametrize("members, stride", [(16, 4), (4, 4), (4, 16)])
def test_the_closed_form_with_siblings_matches_simulating_all_of_them_within_10_percent(members, stride, size):
    on = topology("trn2-ultraserver")
    groups = [RankGroup(members, stride=stride, start=core) for core in range(4)]
    simulated = simulate("all_reduce", size, groups, on, algorithm="ring").time_us
    assert simulated == pytest.approx(collective_time_us("all_reduce", size, groups[0], on, algorithm="ring"), rel=0.1)


@given(
    name=st.sampled_from(["trn2.3xlarge", "trn2.48xlarge", "trn3-server", "trn3-ultraserver-gen1"]),
    op=st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "permute", "broadcast"]),
    size=st.floats(1, 1e9),
)
@settings(max_examples=40)
def test_no_link_and_no_engine_carries_more_than_its_rate_allows(name, op, size):
    from opentrn.fabric.network import Network

    on = topology(name)
    found = simulate(op, size, on.num_ranks, on)
    rates = Network(on).link_rate
    rates[: on.num_ranks] = on.rank_bandwidth_gb_per_s * 1e3
    assert (found.link_bytes / rates).max() <= found.time_us * (1 + 1e-9)
    assert found.finish_us.max() == found.time_us >= on.runtime.launch_us + on.runtime.step_us


def test_every_rank_receives_what_the_operation_moves():
    """Conservation: bytes that leave the engines are those that the algorithm must move."""
    on = topology("trn2.48xlarge")
    size, ranks = 64_000_000, 64
    ring = simulate("all_reduce", size, ranks, on, algorithm="ring")
    assert ring.link_bytes[:ranks].sum() == pytest.approx(2 * (ranks - 1) * size)
    exchange = simulate("all_to_all", size, ranks, on)
    assert exchange.link_bytes[:ranks].sum() == pytest.approx((ranks - 1) * size)


def test_all_to_all_is_never_faster_than_its_busiest_link():
    on = topology("trn3-ultraserver")
    found = simulate("all_to_all", 64e6, on.num_ranks, on)
    formula = closed("all_to_all", 64e6, on.num_ranks, on)
    assert formula <= found.time_us <= 1.4 * formula


def test_a_broken_link_carries_nothing_and_slows_the_collective():
    from opentrn.fabric.network import Network

    on = topology("trn2-ultraserver")
    whole = simulate("all_reduce", 64e6, 256, on, algorithm="torus")
    less = simulate("all_reduce", 64e6, 256, on, algorithm="torus", broken_links=[(0, 1)])
    network = Network(on)
    links = [network._direct_link(0, 1), network._direct_link(1, 0)]
    assert (whole.link_bytes[links] > 0).all() and (less.link_bytes[links] == 0).all()
    assert less.time_us > 1.2 * whole.time_us
    assert less.link_bytes[: on.num_ranks].sum() == pytest.approx(whole.link_bytes[: on.num_ranks].sum())


@pytest.mark.parametrize("name, pair", [("trn2.48xlarge", (0, 12)), ("trn3-ultraserver-gen1", (3, 35))])
def test_routes_round_a_broken_link_are_shortest_paths_without_it(name, pair):
    import rustworkx

    from opentrn.fabric import topology_graph
    from opentrn.fabric.network import NO_LINK, Network

    on = topology(name)
    links, _ = Network(on, frozenset([pair])).routes(
        np.array([pair[0], pair[1]]) * on.ranks_per_chip, np.array([pair[1], pair[0]]) * on.ranks_per_chip
    )
    graph = topology_graph(on)
    graph.remove_edge(*pair)
    distance = rustworkx.distance_matrix(graph)[pair]
    assert ((links != NO_LINK).sum(axis=1) == distance).all() and distance > 1


def test_results_are_equal_to_the_last_bit_from_run_to_run():
    on = topology("trn3-ultraserver-gen1")
    first, second = (simulate("all_to_all", 1e6, on.num_ranks, on) for _ in range(2))
    assert first.time_us == second.time_us
    assert np.array_equal(first.finish_us, second.finish_us)


def test_what_has_no_message_level_form_says_so():
    with pytest.raises(OpenTrnError, match="closed form"):
        simulate("all_reduce", 1e6, 16, topology("p5.48xlarge", 2))
    with pytest.raises(OpenTrnError, match="do not divide"):
        simulate("all_reduce", 1e6, RankGroup.of([0, 1, 2, 4, 5]), topology("trn2.48xlarge"))
    with pytest.raises(OpenTrnError, match="messages"):
        simulate("all_to_all", 1e6, 32768, topology("torus-32x32x32"))
    with pytest.raises(OpenTrnError, match="no direct link"):
        simulate("all_reduce", 1e6, 64, topology("trn2.48xlarge"), broken_links=[(0, 5)])
    with pytest.raises(OpenTrnError, match="no direct link"):
        simulate("all_reduce", 1e6, 64, topology("trn2.48xlarge"), broken_links=[(0, 99)])
    with pytest.raises(OpenTrnError, match="disjoint"):
        simulate("all_reduce", 1e6, [RankGroup(4), RankGroup(4, start=2)], topology("trn2.48xlarge"))
