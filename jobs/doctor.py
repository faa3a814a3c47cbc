"""Say what is installed, which accelerator and which Ray there is, and what is missing.

With --address the same is asked of a cluster: from every kind of node whether the versions agree,
--storage can be read and written, --tracking answers, and torch can use the GPU that Ray offers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs import options
from pipeline.machine_check import Finding, check_machine, verdict

_STOP_S = 3


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    built = options.parser("doctor", __doc__ or "", has_settings=False)
    options.add_address(built)
    storage = "folder or URI that every node of the cluster must read and write"
    built.add_argument("--storage", metavar="DIR", help=storage)
    tracking = "MLflow server that every node of the cluster must reach"
    built.add_argument("--tracking", metavar="URL", help=tracking)
    built.add_argument("--on-cluster", action="store_true", help=argparse.SUPPRESS)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; the exit code is 1 if something necessary is missing."""
    parsed = build_parser().parse_args(argv)
    body = examine_here
    if parsed.on_cluster:
        body = examine_nodes
    elif parsed.address or parsed.storage or parsed.tracking:
        body = examine_cluster
    return options.run(lambda: body(parsed), parsed)


def examine_here(parsed: argparse.Namespace) -> int:
    """Print the findings of this machine; returns the exit code."""
    findings = list(check_machine())
    code = print_findings(findings)
    print(f"\n{verdict(findings)}")
    return code


def examine_cluster(parsed: argparse.Namespace) -> int:
    """Submit a job that examines the nodes, and print what it finds; returns the exit code."""
    from jobs.submission import Submission
    from pipeline.submission.client import connect, exit_code
    from pipeline.submission.follow import follow

    given = {"--storage": parsed.storage, "--tracking": parsed.tracking}
    arguments = [part for name, value in given.items() if value for part in (name, value)]
    server = connect(parsed.address)
    job_id = Submission.of("doctor", ["--on-cluster", *arguments]).send(server, _STOP_S)
    print(f"the job {job_id} asks the nodes; this takes a minute", file=sys.stderr, flush=True)
    log: list[str] = []
    job = follow(server, job_id, log.append)
    findings = [line for line in log if line.startswith(("ok ", "note ", "missing "))]
    print("\n".join(findings or log))
    return exit_code(job)


def examine_nodes(parsed: argparse.Namespace) -> int:
    """Print the findings of every kind of node of the connected cluster; returns the exit code."""
    from pipeline.cluster import ray_cluster
    from pipeline.node_check import check_nodes

    with ray_cluster():
        return print_findings(check_nodes(parsed.storage, parsed.tracking))


def print_findings(findings: Sequence[Finding]) -> int:
    """Print a line for each finding; returns 1 if something necessary is missing."""
    for finding in findings:
        print(f"{finding.state:<8} {finding.subject:<14} {finding.detail}")
    return int(any(finding.state == "missing" for finding in findings))


if __name__ == "__main__":
    options.main_of(main)
