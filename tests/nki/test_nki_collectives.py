"""Collectives inside kernels: what each computes, alone and between ranks, and what is refused."""

import threading

import numpy as np
import pytest

import opentrn.nki as nki
import opentrn.nki.collectives as ncc
import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn import hardware
from opentrn.errors import OpenTrnError, UnsupportedError, ValidationError
from opentrn.neuroncore import machine
from opentrn.neuroncore.machine import Core

PUBLISHED = [
    "ReplicaGroup", "all_gather", "all_gather_v", "all_reduce", "all_to_all", "all_to_all_v", "collective_permute",
    "collective_permute_implicit", "collective_permute_implicit_current_processing_rank_id",
    "collective_permute_implicit_reduce", "rank_id", "reduce_scatter",
]  # fmt: skip


class Threads:
    """Ranks that are threads of this test; the members of a group meet at a barrier of their own."""

    def __init__(self):
        self.values, self.barriers, self.lock = {}, {}, threading.Lock()

    def of(self, rank):
        shared = self

        class One:
            def __init__(self):
                self.rank = rank

            def share(self, core, members, value):
                with shared.lock:
                    barrier = shared.barriers.setdefault(members, threading.Barrier(len(members), timeout=10))
                shared.values[rank] = value
                barrier.wait()
                found = {r: shared.values[r] for r in members}
                barrier.wait()
                return found

        return One()


def on_ranks(size, work):
    """Results of ``work(rank, hbm)`` on each of ``size`` ranks; ``hbm`` allocates an HBM tensor with values."""
    ranks, results, errors = Threads(), [None] * size, []

    def run(rank):
        machine.state.core = core = Core(hardware.chip("trn3").core, communicator=ranks.of(rank))

        def hbm(values, dtype="float32", buffer="shared_hbm"):
            tensor = core.allocate(np.shape(values), dtype, buffer)
            tensor.array()[...] = values
            tensor.storage.state = 2
            return tensor

        try:
            results[rank] = work(rank, hbm).array()
        except Exception as error:
            errors.append(error)
            for barrier in ranks.barriers.values():
                barrier.abort()

    threads = [threading.Thread(target=run, args=(r,)) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


DATA = np.random.default_rng(5).standard_normal((4, 8, 3)).astype(np.float32)
ALL = ncc.ReplicaGroup([[0, 1, 2, 3]])


def test_every_published_name_exists():
    assert [name for name in PUBLISHED if not hasattr(ncc, name)] == []


@pytest.mark.parametrize(("op", "reference"), [(nl.add, np.add), (nl.maximum, np.maximum), (nl.minimum, np.minimum)])
def test_all_reduce(op, reference):
    def work(rank, hbm):
        ncc.all_reduce([hbm(DATA[rank])], [out := hbm(np.zeros((8, 3)))], ALL, op)
        return out

    for result in on_ranks(4, work):
        np.testing.assert_allclose(result, reference.reduce(DATA), rtol=1e-6)


def test_all_gather_and_reduce_scatter_and_all_to_all():
    def gather(rank, hbm):
        ncc.all_gather(
            srcs=[hbm(DATA[rank])], dsts=[out := hbm(np.zeros((32, 3)))], replica_group=ALL, collective_dim=0
        )
        return out

    def scatter(rank, hbm):
        ncc.reduce_scatter([hbm(DATA[rank])], [out := hbm(np.zeros((2, 3)))], ALL, 0, nl.add)
        return out

    def exchange(rank, hbm):
        ncc.all_to_all([hbm(DATA[rank])], [out := hbm(np.zeros((8, 3)))], ALL, 0)
        return out

    for result in on_ranks(4, gather):
        assert (result == DATA.reshape(32, 3)).all()
    for rank, result in enumerate(on_ranks(4, scatter)):
        np.testing.assert_allclose(result, DATA.sum(0)[2 * rank : 2 * rank + 2], rtol=1e-5, atol=1e-6)
    for rank, result in enumerate(on_ranks(4, exchange)):
        assert (result == DATA[:, 2 * rank : 2 * rank + 2].reshape(8, 3)).all()


def test_groups_work_side_by_side():
    pairs = ncc.ReplicaGroup([[0, 2], [3, 1]])

    def work(rank, hbm):
        ncc.all_gather([hbm(DATA[rank])], [out := hbm(np.zeros((16, 3)))], pairs, 0)
        return out

    results = on_ranks(4, work)
    assert (results[0] == DATA[[0, 2]].reshape(16, 3)).all() and (results[0] == results[2]).all()
    assert (results[1] == DATA[[3, 1]].reshape(16, 3)).all()


def test_sbuf_tiles_gather_along_the_free_dimension():
    def work(rank, hbm):
        source, out = hbm(DATA[rank], buffer="sbuf"), hbm(np.zeros((8, 12)), buffer="sbuf")
        ncc.all_gather([source], [out], ALL, 1)
        return out

    assert (on_ranks(4, work)[2] == np.concatenate(list(DATA), axis=1)).all()


def test_rings_pass_to_the_successor_and_know_whose_data_they_hold():
    def work(rank, hbm):
        held = hbm(DATA[rank])
        for step in range(1, 4):
            ncc.collective_permute_implicit([[held]], [[following := hbm(np.zeros((8, 3)))]], ALL)
            owner = ncc.collective_permute_implicit_current_processing_rank_id(step, ALL)
            assert int(owner) == (rank - step) % 4 and (following.array() == DATA[int(owner)]).all()
            held = following
        return held

    on_ranks(4, work)

    def reduced(rank, hbm):
        ncc.collective_permute_implicit_reduce(
            [[hbm(DATA[rank])]], [[hbm(DATA[rank])]], [[out := hbm(DATA[0])]], ALL, nl.add
        )
        return out

    assert (on_ranks(4, reduced)[3] == 2 * DATA[2]).all()


def test_permute_by_pairs_leaves_ranks_that_are_no_target_alone():
    def work(rank, hbm):
        ncc.collective_permute([hbm(DATA[rank])], [out := hbm(np.full((8, 3), -1.0))], [(0, 3), (3, 1)])
        return out

    results = on_ranks(4, work)
    assert (results[3] == DATA[0]).all() and (results[1] == DATA[3]).all() and (results[0] == -1).all()


def test_counts_known_only_at_run_time():
    counts = np.array([[1, 2, 0, 3], [2, 2, 2, 0], [0, 0, 1, 1], [4, 0, 0, 1]])
    sent = [np.arange(12) + 100 * r for r in range(4)]

    def work(rank, hbm):
        starts = np.concatenate([[0], np.cumsum(counts[rank])[:-1]])
        metadata = hbm(np.stack([counts[rank], starts, np.full(4, 99)]), "uint32")
        out = hbm(np.full(20, -1.0))
        ncc.all_to_all_v([hbm(sent[rank])], [out], ALL, metadata)
        assert (metadata.array()[2] == counts[:, rank]).all()
        return out

    for rank, result in enumerate(on_ranks(4, work)):
        for source in range(4):
            first = counts[source, :rank].sum()
            slot = result[5 * source : 5 * source + 5]
            n = counts[source, rank]
            assert (slot[:n] == sent[source][first : first + n]).all() and (slot[n:] == -1).all()


@nki.jit
def alone(x):
    group, out = ncc.ReplicaGroup([[0]]), nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    ncc.all_reduce([x], [out], group, nl.add)
    assert int(ncc.rank_id()) == 0
    return out


def test_one_rank_alone_copies():
    assert (alone(DATA[0]) == DATA[0]).all()


def test_ranks_that_are_not_there_are_an_error_that_says_so():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        ncc.all_reduce([x], [out], ncc.ReplicaGroup([[0, 1]]), nl.add)
        return out

    with pytest.raises(UnsupportedError, match="runs alone as rank 0; launch it with ranks"):
        kernel(DATA[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, o: ncc.all_reduce([x], [o], ALL, nl.multiply), "nl.add, nl.minimum or nl.maximum"),
        (lambda x, o: ncc.all_reduce([x, x], [o], ALL, nl.add), "2 sources and 1 destinations"),
        (lambda x, o: ncc.all_reduce([x], [nl.ndarray((8, 3), nl.float32)], ALL, nl.add), "different memories"),
        (lambda x, o: ncc.all_gather([x], [o], ALL, 0), "must have 96"),
        (lambda x, o: ncc.all_gather([x], [o], ALL, 1), "collective_dim=1; it must be 0"),
        (lambda x, o: ncc.all_reduce([x], [o], [[0]], nl.add), "must be an nki.collectives.ReplicaGroup"),
        (lambda x, o: ncc.ReplicaGroup([[0, 1], [1, 2]]), "rank 1 is in two lists"),
        (lambda x, o: ncc.ReplicaGroup(3), "lists of ranks"),
        (lambda x, o: ncc.collective_permute([x], [o], [(0, 1), (2, 1)]), "sends to one rank twice"),
    ],
)
def test_malformed_collectives_are_refused(call, message):
    @nki.jit
    def kernel(x):
        call(x, nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm))
        return x

    with pytest.raises(ValidationError, match=message):
        kernel(DATA[0])


def test_sending_what_was_never_written_is_reported():
    @nki.jit
    def kernel(x):
        tile, out = nl.ndarray((8, 3), x.dtype), nl.ndarray((8, 3), x.dtype)
        ncc.all_reduce([tile], [out], ncc.ReplicaGroup([[0]]), nl.add)
        nisa.dma_copy(x, out)
        return x

    with pytest.raises(OpenTrnError, match="never written"):
        kernel(DATA[0])
