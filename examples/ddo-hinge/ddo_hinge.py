"""A hinge loss on the rewards, as in some GANs: `--ddo-objective=hinge --ddo-hinge-margin=2`."""

from dataclasses import dataclass

import click
import torch

from ddo_plugin import Outcome, Terms, TrainsOn, hookimpl, objective_statistics


@dataclass(frozen=True)
class Hinge:
    alpha: float
    beta: float
    margin: float
    trains_on: TrainsOn = "both"

    def __call__(self, terms: Terms) -> Outcome:
        real = torch.relu(self.margin - self.beta * terms.r_real)
        fake = self.alpha * torch.relu(self.margin + self.beta * terms.r_fake)
        return Outcome(real, fake, objective_statistics(terms, self.beta, real, fake))


@hookimpl
def ddo_objectives():
    return {"hinge": lambda options: Hinge(options["ddo_alpha"], options["ddo_beta"], options["ddo_hinge_margin"])}


@hookimpl
def ddo_options(upstream):
    return [
        click.Option(
            ["--ddo-hinge-margin"], type=float, default=1.0, show_default=True, help="Margin of the hinge loss."
        )
    ]
