"""Options of a round of VAR, and options that choose how a VAR is sampled; light to import."""

from __future__ import annotations

import click

from ddo_plugin import Number, UserError

PRECISIONS = ("fp32", "fp16", "bf16")


def round_options() -> list[click.Option]:
    """Return the options of a round's length, schedule and output."""
    return [
        click.Option(
            ["--ddo-iters"],
            type=click.IntRange(min=2),  # upstream's schedule divides by the number of steps minus 1
            default=80,
            show_default=True,
            help="Optimizer steps of the round.",
        ),
        click.Option(
            ["--ddo-schedule"],
            type=click.Choice(["epoch", "round"]),
            default="epoch",
            show_default=True,
            help="Length of upstream's learning rate schedule. epoch: one epoch of the data, of which the round is the "
            "beginning; the length of the round if that is longer. round: the length of the round.",
        ),
        click.Option(
            ["--ddo-save"],
            type=click.IntRange(min=1),
            default=4,
            show_default=True,
            help="Optimizer steps between snapshots of the network.",
        ),
        click.Option(
            ["--ddo-state"],
            type=click.IntRange(min=0),
            default=20,
            show_default=True,
            help="Optimizer steps between training states, from which a run resumes; 0 writes none.",
        ),
    ]


def no_compile_option() -> click.Option:
    """Return an option that refuses `--ddo-compile`, because VAR has an option of its own."""

    def refuse(context: click.Context, option: click.Parameter, typed: bool) -> None:
        if typed:
            raise UserError("--ddo-compile is for EDM and EDM2; use --tfast, VAR's own option for torch.compile")

    return click.Option(["--ddo-compile"], is_flag=True, hidden=True, expose_value=False, callback=refuse)


def fakes_options() -> list[click.Option]:
    """Return the options of how the reference is sampled during training."""
    return [
        click.Option(
            ["--ddo-fakes-from"],
            type=click.Choice(["pixels", "tokens"]),
            help="pixels: decode the fakes to images and encode these, as real images are encoded. tokens: use the "
            "tokens as they were drawn.  [default: pixels; with --ddo-fakes, as the set was made]",
        ),
        click.Option(
            ["--ddo-fakes-cfg"],
            type=Number(0),
            default=0.0,
            show_default=True,
            help="Classifier-free guidance scale of the fakes, as VAR defines it; 0 samples the reference itself.",
        ),
        click.Option(
            ["--ddo-fakes-precision"],
            type=click.Choice(["fp32", "amp"]),
            default="fp32",
            show_default=True,
            help="Precision in which fakes are sampled; amp is that of the training step (--fp16).",
        ),
    ]


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
