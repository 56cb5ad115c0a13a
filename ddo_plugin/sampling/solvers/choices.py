"""Names of the solvers and spacings, for command-line options. Light to import."""

from __future__ import annotations

DPM_SOLVER_V3 = "dpm-solver-v3"
SOLVERS = ("heun", "euler", DPM_SOLVER_V3)
SPACINGS = ("edm", "logSNR", "time_uniform")
