"""How the images of a batch are dealt out over the devices that its run has."""

import jax
from jax.sharding import PartitionSpec

AXES = ("run", "batch")  # of the mesh of devices


def split(batch: jax.Array) -> jax.Array:
    """Deal a batch (leading axis) out over the devices that its run has, if these are several."""
    if AXES[1] not in jax.sharding.get_abstract_mesh().axis_names:
        return batch
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(AXES[1]))
