"""HoldfastCells: clusters that agree with each other as cells, and what goes on between them.

A cell is a HoldfastCluster of the same namespace, or a cluster anywhere else that is given by its endpoints. The rules
between the fields are here and, for the API server, in `crd.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from holdfast.client.endpoints import parse
from pydantic import AfterValidator, Field, model_validator

from holdfast_operator.model.common import Condition, Model, Resources, SecretReference, Toleration

OWN_KEYS = "/cells/"  # what the cells keep themselves; it is replicated nowhere
DEFAULT_RESOURCES = Resources(requests={"cpu": "10m", "memory": "64Mi"}, limits={"memory": "192Mi"})


def _endpoint(text: str) -> str:
    parse(text, None)
    return text


# Two hyphens in a row separate two names in the name of a container.
CellName = Annotated[str, Field(max_length=20, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Endpoint = Annotated[
    str, Field(max_length=262, pattern=r"^([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$"), AfterValidator(_endpoint)
]
Prefix = Annotated[str, Field(min_length=1, max_length=512, pattern="^/")]


class CellTls(Model):
    secretName: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        description="A Secret in the same namespace with ca.crt, and with tls.crt and tls.key if the cluster wants "
        "certificates of clients."
    )


class Where(Model):
    """Where a cell is."""

    cluster: Annotated[str, Field(min_length=1, max_length=40)] | None = Field(
        default=None, description="A HoldfastCluster in the same namespace."
    )
    endpoints: Annotated[list[Endpoint], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="HOST:PORT of the servers of a cluster that is elsewhere."
    )
    tls: CellTls | None = Field(
        default=None, description="Certificates for the endpoints; without them there is no encryption."
    )


class Cell(Where):
    name: CellName = Field(description="Name of the cell. It stays the same as long as the cell belongs to the set.")
    readmit: Annotated[str, Field(pattern="^[0-9a-f]{1,16}$")] | None = Field(
        default=None,
        description="A cluster id, as the status shows it. If the cluster of the cell was restored from a snapshot or "
        "replaced, and has this id now, it is taken in again. What it had carried out after its snapshot is lost.",
    )

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Self:
        if (self.cluster is None) == (self.endpoints is None):
            raise ValueError("give either cluster or endpoints")
        if self.tls is not None and self.endpoints is None:
            raise ValueError("tls belongs to endpoints; the certificates of a HoldfastCluster are known")
        return self


class Courier(Model):
    """A queue whose messages are delivered."""

    from_: CellName = Field(alias="from", description="The cell in which messages are sent.")
    to: CellName = Field(description="The cell in which they are carried out.")


class Replicated(Model):
    prefix: Prefix = Field(description="The keys that begin so are replicated. None may begin with another prefix.")
    from_: CellName = Field(alias="from", description="The cell that has the keys.")
    to: Annotated[list[CellName], Field(min_length=1, max_length=6)] | None = Field(
        default=None, description="The cells that get them; all others if absent."
    )


class WorkersPlacement(Model):
    nodeSelector: dict[str, str] | None = Field(default=None, description="Labels a node must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = Field(
        default=None, description="Taints that do not keep the pods away."
    )


class CellsSpec(Model):
    cells: Annotated[list[Cell], Field(min_length=1, max_length=7)] = Field(
        description="The cells of the set. A change adds and removes cells; those that are added have to answer."
    )
    queues: Annotated[list[Courier], Field(max_length=42)] | None = Field(
        default=None, description="Queues that a courier delivers."
    )
    replicate: Annotated[list[Replicated], Field(max_length=16)] | None = Field(
        default=None, description="Prefixes that a replicator keeps alike in other cells."
    )
    replicas: Annotated[int, Field(ge=0, le=5)] = Field(
        default=1, description="How many pods have the janitor, the couriers and the replicators. 0: none runs."
    )
    image: str | None = Field(default=None, description="The image of these pods; that of the operator if absent.")
    imagePullSecrets: Annotated[list[SecretReference], Field(max_length=16)] | None = Field(
        default=None, description="Secrets with the credentials of the image's registry."
    )
    resources: Resources | None = Field(
        default=None,
        description="Requests and limits of each process, in the place of the default ones; {} means none at all.",
    )
    placement: WorkersPlacement = Field(default_factory=WorkersPlacement, description="On which nodes the pods run.")

    @model_validator(mode="after")
    def _names_are_known_and_used_once(self) -> Self:
        names = [cell.name for cell in self.cells]
        _once("cells", names)
        for queue in self.queues or ():
            _pair("queues", queue.from_, [queue.to], names)
        _once("queues", [f"{queue.from_} to {queue.to}" for queue in self.queues or ()])
        for each in self.replicate or ():
            _pair(f"replicate {each.prefix}", each.from_, self.destinations(each), names)
            _once(f"replicate {each.prefix}: to", self.destinations(each))
        return self

    @model_validator(mode="after")
    def _prefixes_are_apart(self) -> Self:
        prefixes = [each.prefix for each in self.replicate or ()]
        for n, prefix in enumerate(prefixes):
            if prefix.startswith(OWN_KEYS) or OWN_KEYS.startswith(prefix):
                raise ValueError(f"replicate: {prefix} has keys below {OWN_KEYS}, which each cell has for itself")
            if any(other.startswith(prefix) for at, other in enumerate(prefixes) if at != n):
                raise ValueError(f"replicate: another prefix begins with {prefix}, or is the same")
        return self

    def destinations(self, replicated: Replicated) -> list[str]:
        """The cells that get a prefix."""
        if replicated.to is not None:
            return replicated.to
        return [cell.name for cell in self.cells if cell.name != replicated.from_]


def _once(what: str, names: Sequence[str]) -> None:
    for n, name in enumerate(names):
        if name in names[:n]:
            raise ValueError(f"{what}: {name} is given twice")


def _pair(what: str, source: str, destinations: Sequence[str], cells: Sequence[str]) -> None:
    for name in (source, *destinations):
        if name not in cells:
            raise ValueError(f"{what}: {name} is none of the cells {', '.join(cells)}")
    if source in destinations:
        raise ValueError(f"{what}: from and to are the same cell, {source}")
    if not destinations:
        raise ValueError(f"{what}: there is no cell beside {source}")


class CellStatus(Where):
    """Where the cell is stays here until it has left the set: after it has left the spec, too."""

    name: str = Field(description="Name of the cell.")
    reachable: bool = Field(description="Whether it answers.")
    counts: bool = Field(description="Whether its answers count for a majority of the set.")
    message: str | None = Field(default=None, description="Why it does not answer or count.")
    clusterID: str | None = Field(default=None, description="Id of the cluster that answers, hexadecimal.")
    transactionsOpen: int | None = Field(default=None, description="Transactions that are prepared and not decided.")
    oldestIntentSeconds: int | None = Field(
        default=None, description="How old the oldest of them is at most, in steps of 1, 2, 5, 10, 20, 50 and so on."
    )


class QueueStatus(Model):
    from_: str = Field(alias="from", description="The cell in which messages are sent.")
    to: str = Field(description="The cell in which they are carried out.")
    waiting: int | None = Field(default=None, description="Messages on their way; absent if a cell is away.")
    refused: int | None = Field(default=None, description="Messages that were put aside at the destination.")


class ReplicationStatus(Model):
    prefix: str = Field(description="The keys that are copied.")
    from_: str = Field(alias="from", description="The cell that has them.")
    to: str = Field(description="The cell that gets them.")
    revision: int = Field(description="The keys are there as of this revision of `from`; 0: they are being filled in.")
    behind: int | None = Field(
        default=None, description="Revisions of `from` since, also of other keys; absent if it is away."
    )


class CellsStatus(Model):
    observedGeneration: int | None = Field(
        default=None, description="metadata.generation of the spec that the operator acted on last."
    )
    version: int | None = Field(default=None, description="Version of the set of cells; each change of it adds two.")
    cells: list[CellStatus] | None = Field(default=None, description="The cells, also those that leave the set.")
    queues: list[QueueStatus] | None = Field(default=None, description="All queues that were ever used.")
    replication: list[ReplicationStatus] | None = Field(default=None, description="All prefixes that are copied.")
    reachable: str | None = Field(default=None, description="Cells that answer, and all, for kubectl get.")
    oldestIntentSeconds: int | None = Field(default=None, description="The highest of all cells.")
    lag: int | None = Field(default=None, description="Messages that wait, in all queues together.")
    conditions: list[Condition] | None = Field(
        default=None, description="Ready sums up the others; its reason and message say what is wrong."
    )
