"""The release's EDM2_sample.py, whose DPM-Solver-v3 names the GPU wherever it makes a tensor; takes its arguments."""

import EDM2_sample
import torch

gpu_solver = EDM2_sample.DPM_Solver_v3


def solver_on_cpu(*arguments, device, **options):
    return gpu_solver(*arguments, device="cpu", **options)


if __name__ == "__main__":
    torch.Tensor.cuda = lambda tensor: tensor
    EDM2_sample.DPM_Solver_v3 = solver_on_cpu
    EDM2_sample.cmdline()
