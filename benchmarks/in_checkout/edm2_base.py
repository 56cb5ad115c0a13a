"""Train a tiny network with unmodified EDM2: `edm2_base.py DATA OUTDIR NIMG`, run in the checkout.

Upstream's smallest preset is too large for the digits, so this script calls upstream's own training loop with a smaller
configuration. `benchmarks.digits_edm2` finetunes the network that it trains.
"""

import sys
from pathlib import Path

import torch
from torch_utils import distributed as dist
from training.training_loop import training_loop

BATCH = 128
NETWORK = {
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [],
    "channels_per_head": 16,
    "use_fp16": False,
}


def main(data: str, outdir: str, nimg: int) -> None:
    """Train on the dataset `data` for `nimg` images; `outdir` then holds the final snapshot."""
    dist.init()
    Path(outdir).mkdir(parents=True, exist_ok=True)
    training_loop(
        run_dir=outdir,
        dataset_kwargs={"class_name": "training.dataset.ImageFolderDataset", "path": data, "use_labels": True},
        encoder_kwargs={"class_name": "training.encoders.StandardRGBEncoder"},
        data_loader_kwargs={"class_name": "torch.utils.data.DataLoader", "num_workers": 0},
        network_kwargs={"class_name": "training.networks_edm2.Precond", **NETWORK},
        loss_kwargs={"class_name": "training.training_loop.EDM2Loss", "P_mean": -0.8, "P_std": 1.6},
        lr_kwargs={
            "func_name": "training.training_loop.learning_rate_schedule",
            "ref_lr": 0.01,
            "ref_batches": 500,
            "rampup_Mimg": 0.01,
        },
        ema_kwargs={"class_name": "training.phema.PowerFunctionEMA", "stds": [0.1]},
        batch_size=BATCH,
        total_nimg=nimg,
        status_nimg=1 << 14,
        snapshot_nimg=nimg,
        checkpoint_nimg=None,
    )
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
