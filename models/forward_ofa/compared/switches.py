"""Methods that are Forward-OFA with one part left out or replaced, and others': what each decides; knows no torch.

Name here -> name in the paper: devicerec DeviceRec, controller the controller without a mapper, duet DUET,
no_structure_vector w.o. structural vector; random, first and last run a fixed number of blocks in place of the
controller's choice. litepred is the last step of LitePred: one structure for all users of a device, which a search
under a limit of latency has found and the architecture names, is trained. sttd, rare_gem, gater and finetune are STTD,
Rare Gem, Gater and Finetune, which run the whole backbone: the files of these names beside this one say what they do to
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """What decides the structure, whether a mapper generates the weights, and whether it knows the structure.

    Without a mapper, `factored` weights are products of smaller matrices, `sparse` ones are learned under a mask, a
    `gated` network closes units of its blocks for each user, and `tuned` weights go on learning on each user's clicks.
    """

    structure: Literal["controller", "all", "random", "first", "last", "given"]
    mapper: bool
    structure_vector: bool
    factored: bool = False
    sparse: bool = False
    gated: bool = False
    tuned: bool = False

    @property
    def takes_kept_blocks(self) -> bool:
        """Say whether the number of blocks that run is given with the architecture."""
        return self.structure in ("random", "first", "last")


METHODS: Mapping[str, Method] = {
    "forward_ofa": Method("controller", mapper=True, structure_vector=True),
    "devicerec": Method("all", mapper=False, structure_vector=False),
    "controller": Method("controller", mapper=False, structure_vector=False),
    "duet": Method("all", mapper=True, structure_vector=False),
    "no_structure_vector": Method("controller", mapper=True, structure_vector=False),
    "random": Method("random", mapper=True, structure_vector=True),
    "first": Method("first", mapper=True, structure_vector=True),
    "last": Method("last", mapper=True, structure_vector=True),
    "sttd": Method("all", mapper=False, structure_vector=False, factored=True),
    "litepred": Method("given", mapper=False, structure_vector=False),
    "rare_gem": Method("all", mapper=False, structure_vector=False, sparse=True),
    "gater": Method("all", mapper=False, structure_vector=False, gated=True),
    "finetune": Method("all", mapper=False, structure_vector=False, tuned=True),
}
"""Forward-OFA itself, and the methods that it is compared with."""
