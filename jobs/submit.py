"""Run a command on a Ray cluster, and follow it: `audiocalm submit train --shards ... --output ...`

The command gets the same options and recipe as here. The code and the recipe travel with it; data
does not, so folders are absolute paths or URIs that every node reaches. Ctrl-C leaves the job
running; `audiocalm status NAME --follow` attaches to it again. The exit code is that of the job.

`audiocalm COMMAND --help` lists the options of a command; those below may stand among them.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.cluster_arguments import SUBMITTABLE
from jobs.options import add_address, main_of, parser, positive, run
from jobs.submission import Submission


def build_parser() -> ArgumentParser:
    """Parser of the command line; options that it does not know belong to the command."""
    built = parser("submit", __doc__ or "", has_settings=False)
    built.allow_abbrev = False
    add = built.add_argument
    add("job", choices=SUBMITTABLE, metavar="COMMAND", help=", ".join(SUBMITTABLE))
    add_address(built)
    name = "name of the job, and of its run in MLflow; default: the command, date and time"
    add("--name", help=name)
    given = "environment variable that the job gets with its value here; may be repeated"
    add("--env", metavar="NAME", action="append", default=[], help=given)
    secret = "environment variable that must be set on the cluster; its value is never sent"
    add("--secret", metavar="NAME", action="append", default=[], help=secret)
    cpus = "CPUs that the job's own process reserves; default: 1 for commands that compute there, "
    cpus += "else 0"
    add("--driver-cpus", type=float, metavar="N", help=cpus)
    stop = "seconds that `stop` gives the job to save a checkpoint; default: 900"
    add("--stop-seconds", type=positive, default=900, metavar="S", help=stop)
    waiting = built.add_mutually_exclusive_group()
    waiting.add_argument("--wait", action="store_true", help="wait without showing progress")
    waiting.add_argument("--detach", action="store_true", help="submit and return")
    rayjob = "submit nothing, print a KubeRay RayJob for the RayCluster of this name"
    waiting.add_argument("--rayjob", metavar="CLUSTER", help=rayjob)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm submit`; returns the exit code of the job."""
    options, arguments = build_parser().parse_known_args(argv)
    return run(lambda: submit(options, arguments), options)


def submit(options: Namespace, arguments: Sequence[str]) -> int:
    """Check the command here, submit it, and follow it to its end; returns its exit code."""
    from jobs.watch import watch
    from pipeline.submission.client import connect, refuse_running

    submission = Submission.of(options.job, arguments, options.name, options.env, options.secret)
    if options.rayjob:
        print(submission.manifest(options.rayjob, options.stop_seconds, options.driver_cpus))
        return 0
    server = connect(options.address)
    if options.name:
        refuse_running(server, options.name)
    job_id = submission.send(server, options.stop_seconds, options.driver_cpus)
    print(f"submitted {job_id}; stop it with: audiocalm stop {submission.name}", flush=True)
    if options.detach:
        return 0
    return watch(server, job_id, is_silent=options.wait)


if __name__ == "__main__":
    main_of(main)
