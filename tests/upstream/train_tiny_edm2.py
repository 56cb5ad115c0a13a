"""EDM2's own training command with a network that no preset is small enough for; takes train_edm2.py's arguments."""

import train_edm2

preset_config = train_edm2.setup_training_config


def tiny_config(**options):
    config = preset_config(**options)
    config.network_kwargs.update(model_channels=8, channel_mult=[1, 1], num_blocks=1, attn_resolutions=[])
    config.lr_kwargs.rampup_Mimg = 0
    return config


if __name__ == "__main__":
    train_edm2.setup_training_config = tiny_config
    train_edm2.cmdline()
