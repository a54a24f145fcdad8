"""Snakemake's own tests of an executor, on SLURM; on this machine in tests/test_submitit_local.py."""

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_submitit import ExecutorSettings


@pytest.mark.slurm
@pytest.mark.timeout(300)
class TestSlurm(TestWorkflowsLocalStorageBase):
    __test__ = True

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster="slurm", status_interval=2)
