"""Options that choose how a VAR is sampled; light to import."""

from __future__ import annotations

import click

from ddo_plugin import Number

PRECISIONS = ("fp32", "fp16", "bf16")


def sampling_options() -> list[click.Option]:
    """Return all options that choose how a VAR is sampled."""
    through_pixels = click.Option(
        ["--through-pixels"],
        is_flag=True,
        help="Decode the drawn tokens to pixels and encode the pixels again, as the authors of DDO do for fakes.",
    )
    return [*upstream_options(), through_pixels]


def upstream_options() -> list[click.Option]:
    """Return the options of upstream's sampler, and where its image tokenizer is found."""
    return [
        click.Option(
            ["--cfg"],
            type=Number(0),
            default=0.0,
            show_default=True,
            help="Classifier-free guidance scale, as VAR defines it; 0 disables guidance, 1 does not.",
        ),
        click.Option(
            ["--top-k"],
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Sample from the K most likely tokens; 0 disables.",
        ),
        click.Option(
            ["--top-p"],
            type=Number(0, 1),
            default=0.0,
            show_default=True,
            help="Nucleus sampling threshold; 0 disables.",
        ),
        click.Option(
            ["--more-smooth"],
            is_flag=True,
            help="Average the embeddings of likely tokens, which gives smoother images. Not for measuring FID.",
        ),
        click.Option(
            ["--precision"],
            type=click.Choice(PRECISIONS),
            default="fp32",
            show_default=True,
            help="Floating-point format of the networks' computations.",
        ),
        click.Option(
            ["--vae"],
            metavar="FILE",
            help="Weights of the image tokenizer.  [default: in the current folder or the checkout, or downloaded]",
        ),
    ]
