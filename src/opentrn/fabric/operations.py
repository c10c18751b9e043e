"""The collective operations: their names, what a size means for each, and their bus-bandwidth factor.

Names and aliases are nccom-test's and nccl-tests'. The bus-bandwidth factor turns algorithm bandwidth (size over
time) into the bandwidth a rank's link must have, independent of the number of ranks.
"""

from opentrn.errors import OpenTrnError

OPS = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "all_to_all_v",
    "permute",
    "broadcast",
    "send_recv",
)

_ALIASES = {
    "allr": "all_reduce",
    "allreduce": "all_reduce",
    "allg": "all_gather",
    "allgather": "all_gather",
    "redsct": "reduce_scatter",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "alltoallv": "all_to_all_v",
    "bcast": "broadcast",
    "sendrecv": "send_recv",
    "send": "send_recv",
    "recv": "send_recv",
}


def operation(name: str) -> str:
    """The canonical name of a collective operation; raises OpenTrnError for an unknown one."""
    key = name.lower().replace("-", "_")
    key = _ALIASES.get(key.replace("_", ""), key)
    if key not in OPS:
        raise OpenTrnError(f"unknown collective operation {name!r}; use one of {', '.join(OPS)}")
    return key


def bus_bandwidth_factor(op: str, num_ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth, as nccom-test and nccl-tests define it."""
    if op == "all_reduce":
        return 2 * (num_ranks - 1) / num_ranks
    if op in ("all_gather", "reduce_scatter", "all_to_all", "all_to_all_v"):
        return (num_ranks - 1) / num_ranks
    return 1.0
