"""What a failure of SLURM's commands speaks of: a cluster that is busy or away, a full queue, or the request.

The texts are those of Slurm's src/common/slurm_errno.c (22.05 to 25.11) and src/sbatch/sbatch.c, which retries three of
them itself, and the C library's for sockets.
"""

import re
from enum import Enum


class Fault(Enum):
    """What a failure is of."""

    CLUSTER = "busy or away: the same call may go through later"
    FULL = "as many jobs as this user may have in the queue"
    REQUEST = "the cluster will never take it"
    UNKNOWN = "it says nothing of the request"


FULL = ("maxsubmit", "submitjob", "submit limit reached")
CLUSTER = (
    # of messages: SLURM_UNEXPECTED_MSG_ERROR, SLURM_COMMUNICATIONS_*, SLURM_PROTOCOL_*, SLURM_BLOCKED_ON_*
    *("unexpected message", "communication", "message send failure", "message receive failure", "insane message"),
    *("missing socket", "would block", "rejected by handler", "quiesce timeout", "socket error", "shutting down"),
    *("socket timed out", "zero bytes", "longer than data received", "unable to process incoming"),
    # of the controller: SLURMCTLD_COMMUNICATIONS_*, ESLURM_IN_STANDBY_*, ESLURM_INTERNAL, ESLURM_WRITING_TO_FILE
    *("unable to contact", "rate limit exceeded", "standby", "internal error", "i/o error", "not responding"),
    # of a cluster that was named: it "can't be reached now, or it is an invalid entry"; such names are checked before
    "can't be reached",
    # of what sbatch itself tries again: ESLURM_ERROR_ON_DESC_TO_RECORD_COPY, later ESLURM_MAX_JOB_COUNT;
    # ESLURM_NODES_BUSY; EAGAIN
    *("unable to create job record", "maxjobcount", "queue full", "nodes are busy", "temporarily", "try again"),
    # of a closed shop: ESLURM_SUBMISSIONS_DISABLED, ESLURM_DISABLED, ESLURM_DB_CONNECTION*
    *("submissions disabled", "presently disabled", "connect to database", "database connection"),
    # of munge: ESLURM_AUTH_*, SLURM_PROTOCOL_AUTHENTICATION_ERROR, ESLURMD_CREDENTIAL_*
    *("authentication", "credential"),
    # of sockets and of the machine that asks
    *("connection timed out", "connection refused", "connection reset", "lost connection", "broken pipe"),
    *("timed out after", "operation timed out", "no route to host", "network is unreachable", "network is down"),
    *("host is down", "not connected", "connection aborted", "name lookup failure", "name resolution"),
    *(
        "cannot allocate memory",
        "too many open files",
        "stale file handle",
        "no buffer space",
        "interrupted system",
        "out of memory",
    ),
)
_REQUEST = re.compile(
    r"\b(partitions?|accounts?|qos|wckeys?|nodes?|nodelist|processors?|cpus?|cores?|threads?|tasks?|memory|mem|gres|gpus?"
    r"|time[ _-]?limits?|time specified|time-min|walltime|generic resources?|tres|features?|constraints?|licen[sc]es?"
    r"|reservations?|dependency|array|scripts?|pathname|options?|arguments?|polic(y|ies)|permitted|permission|denied"
    r"|not allowed|mcs[ _]label|burst buffer|distribution|topology|container|working directory|x11|size specification"
    r"|unrecognized|no such file|cluster name|associations?|quota|nice|priority|not installed|must|please specify"
    r"|requested (node|partition|resource|topology)\w*)\b"
)
_FAILED = "batch job submission failed:"
_ASIDE = re.compile(r"^(warning|debug\d?|info|verbose)\b|^\w+_\w+: ")  # the latter: a function of SLURM's own


def fault_of(text: str) -> Fault:
    """What a failure's text speaks of."""
    lower = text.lower()
    if any(one in lower for one in FULL):
        return Fault.FULL
    if any(one in lower for one in CLUSTER):
        return Fault.CLUSTER
    lines = [re.sub(r"^(\s*sbatch: )*((error|fatal): )?", "", line).strip() for line in lower.splitlines()]
    told = [line for line in lines if line and not _ASIDE.match(line)]
    if any(_REQUEST.search(line) for line in told):
        return Fault.REQUEST
    # a site's own check says in its own words what it wants; sbatch then adds that it failed
    others = [line for line in told if not line.startswith(_FAILED)]
    return Fault.REQUEST if others and len(others) < len(told) else Fault.UNKNOWN
