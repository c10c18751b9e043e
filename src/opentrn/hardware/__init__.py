"""What the silicon is: cores, chips, instances, racks, peer GPUs, prices and regions, as data with sources.

Every figure lives in a TOML file beside this module, with its unit in its name, a status and a source. Records read
like objects (`chip("trn2").hbm_bandwidth_gb_per_s`); `record.figure(name)` tells where the number comes from.
Adding a chip is adding a file; a user's own chip is a file passed by path.
"""

from opentrn.hardware.catalog import (
    chip,
    chips,
    core,
    cores,
    find,
    gpu,
    gpus,
    instance,
    instances,
    prices,
    rack,
    racks,
    region,
    regions,
)
from opentrn.hardware.figure import Figure
from opentrn.hardware.records import Chip, Core, Gpu, Instance, Price, Rack, Record, Region

__all__ = [
    "Chip",
    "Core",
    "Figure",
    "Gpu",
    "Instance",
    "Price",
    "Rack",
    "Record",
    "Region",
    "chip",
    "chips",
    "core",
    "cores",
    "find",
    "gpu",
    "gpus",
    "instance",
    "instances",
    "prices",
    "rack",
    "racks",
    "region",
    "regions",
]
