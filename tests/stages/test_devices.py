"""Jobs that want a GPU, on one machine."""

from itertools import pairwise

import pytest
from miniature import Project

from milco.config import parse
from milco.experiments import Experiment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("wanted", "side_by_side"), [("1", False), ("0", True)])
def test_jobs_that_want_the_gpu_do_not_meet(tmp_path, values, wanted, side_by_side):
    project = Project(tmp_path, values)
    vectors = Experiment(parse(values)).vectors
    cores = ("--cores", "16", "--set-resources", f"encode:device={wanted}", "--")
    output = project.snakemake(*cores, *(vectors[system].path for system in ("teacher", "dense")))
    said = ["start" if "encode the test" in line else "end" for line in output.splitlines()
            if "encode the test collections with" in line or "Finished jobid" in line]  # fmt: skip
    assert (("start", "start") in pairwise(said)) == side_by_side, output
