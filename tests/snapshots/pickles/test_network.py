"""Networks of a stranger's class, without an upstream: built from the local module, or refused."""

import contextlib
import pickle
import sys
from random import Random

import pytest
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Upstream
from ddo_plugin.snapshots.pickles import contents, network
from ddo_plugin.snapshots.reference import load_as_stored

LOCAL = """
import torch

class Inner(torch.nn.Module):
    def __init__(self, width, gain=0.5):
        super().__init__()
        self.gain = gain
        self.weight = torch.nn.Parameter(torch.randn(width, width))
        self.register_buffer("phases", torch.rand(width))

class Tiny(torch.nn.Module):
    def __init__(self, width, img_resolution=8, img_channels=1, label_dim=0, model_type="Inner", **kwargs):
        super().__init__()
        self.img_resolution, self.img_channels, self.label_dim = img_resolution, img_channels, label_dim
        self.model = globals()[model_type](width, **kwargs)

    def forward(self, x):
        return x @ self.model.weight * self.model.gain + self.model.phases

def gadget(*arguments, **kwargs):
    open("pwned", "w")
"""
CLASSES = {"Tiny": "tiny_net"}


@pytest.fixture
def save(tmp_path, monkeypatch, persistent):
    """Save a Tiny as upstream's persistence would, after `change` was made to the state that is pickled."""
    (tmp_path / "tiny_net.py").write_text(LOCAL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_net", raising=False)

    def save(change=lambda outer, inner: None, name="Tiny", **kwargs):
        import tiny_net

        torch.manual_seed(0)
        net = tiny_net.Tiny(4, **kwargs).eval()
        inner = dict(vars(net.model), _init_args=(4,), _init_kwargs=kwargs)
        outer = dict(vars(net), _init_args=(4,), _init_kwargs=dict(kwargs))
        change(outer, inner)
        outer["_modules"] = {"model": persistent("Inner", inner, LOCAL)}
        path = tmp_path / "network.pkl"
        path.write_bytes(pickle.dumps({"ema": persistent(name, outer, LOCAL), "loss_fn": persistent("L", {"a": 1})}))
        return path, net

    yield save
    sys.modules.pop("tiny_net", None)


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        network.load(path, classes=CLASSES, **options)
    assert caught.value.message.isprintable()
    return caught.value.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_strangers_network_has_the_same_tensors_and_outputs(save, dtype):
    path, net = save(
        lambda outer, inner: inner.update(_parameters={"weight": inner["_parameters"]["weight"].to(dtype)})
    )
    loaded = network.load(path, classes=CLASSES)
    assert torch.equal(loaded.module.model.weight, net.model.weight.to(dtype))
    assert loaded.module.model.weight.dtype == dtype
    assert torch.equal(loaded.module.model.phases, net.model.phases)
    assert not loaded.module.training and not any(p.requires_grad for p in loaded.module.parameters())


def test_overrides_replace_constructor_arguments(save):
    path, _ = save(gain=0.25)
    assert network.load(path, classes=CLASSES, overrides={"gain": 1.0}).module.model.gain == 1.0


def test_a_constant_that_differs_in_its_last_digits_is_taken_from_the_file(save):
    path, _ = save(lambda outer, inner: inner.update(gain=0.5000001))
    assert network.load(path, classes=CLASSES).module.model.gain == 0.5000001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda outer, inner: inner.update(gain=0.6), "model.gain is 0.6 in the file, 0.5 in the checkout"),
        (lambda outer, inner: inner["_buffers"].clear(), "phases"),
        (lambda outer, inner: inner["_parameters"].update(more=torch.zeros(1)), "more"),
        (lambda outer, inner: inner["_parameters"].update(weight=torch.zeros(4, 5)), "size mismatch"),
        (lambda outer, inner: inner["_parameters"].update(weight="x"), "not a tensor"),
        (lambda outer, inner: inner.update(_forward_hooks={0: "x"}), "hooks"),
        (lambda outer, inner: outer.update(_init_kwargs={"unknown": 1}), "TypeError"),
        (lambda outer, inner: outer.update(_init_kwargs={"model_type": "gadget"}), "model_type is gadget"),
        (lambda outer, inner: outer.update(_init_kwargs={"model_type": "torch"}), "model_type is torch"),
        (lambda outer, inner: outer.update(_init_kwargs={"gain": [[0] * 999] * 999}), "more than 1,000 items"),
        (lambda outer, inner: outer.update(_init_args=(4, 8, 1, 0, "gadget")), "is gadget, which is no network of"),
        (lambda outer, inner: outer.update(_init_args=(100_000,)), "larger network than the file holds"),
        (lambda outer, inner: outer.update(_init_args=(2000,)), "larger network than the file holds"),
        (lambda outer, inner: outer.update(_init_args=([0] * 1100,)), "more than 1,000 items"),
        (
            lambda outer, inner: inner["_buffers"].update(more=inner["_parameters"]["weight"]),
            "model.more shares its numbers with another tensor",
        ),
    ],
)
def test_what_does_not_fit_the_local_class_is_refused(save, tmp_path, change, words):
    path, _ = save(change)
    assert words in refusal(path)
    assert not (tmp_path / "pwned").exists()


def test_a_class_that_is_not_on_the_list_is_refused_and_trust_is_spelled_out(save):
    path, _ = save(name="gadget")
    message = refusal(path, trust_option="--ddo-trust")
    assert "is a gadget" in message and message.endswith("--ddo-trust")


def test_another_plugin_does_not_change_what_an_upstreams_pickles_may_hold(save, monkeypatch):
    path, net = save()
    ours = Upstream("ours", "ours", "train.py", network_classes=CLASSES)
    theirs = Upstream("theirs", "theirs", "train.py", network_classes={"Tiny": "evil", "Wide": "wide_net"})
    monkeypatch.setattr(plugins, "upstreams", lambda: [ours, theirs])
    options = {"ddo_trust": False, "ddo_sha256": None}
    assert torch.equal(load_as_stored(str(path), options, ours).network.model.weight, net.model.weight)
    path, _ = save(name="Wide")
    with pytest.raises(UserError, match=r"is a Wide of wide_net, a module of another upstream"):
        load_as_stored(str(path), options, ours)


def test_a_class_name_of_two_upstreams_fits_the_checkouts_of_both(save, tmp_path, monkeypatch):
    both = [Upstream(name, name, "train.py", network_classes={"Tiny": name}) for name in ("tiny_net", "other_net")]
    monkeypatch.setattr(plugins, "upstreams", lambda: both)
    described = contents.describe_pickle(save()[0])
    assert contents.missing_network_module(described, tmp_path) == ""
    (tmp_path / "empty").mkdir()
    assert "a Tiny of tiny_net or other_net" in contents.missing_network_module(described, tmp_path / "empty")


def test_a_class_that_the_local_module_lacks_is_refused(save):
    path, _ = save(name="Newer")
    with pytest.raises(UserError, match=r"which .*tiny_net\.py does not define"):
        network.load(path, classes={"Newer": "tiny_net"})


def test_without_a_checkout_the_error_says_where_to_run_it(save):
    path, _ = save()
    with pytest.raises(UserError, match="run this in a checkout"):
        network.load(path, classes={"Tiny": "no_such_package.networks"})


def test_a_missing_network_is_named(save):
    path, _ = save()
    assert "no network 'net' in it, only ema, loss_fn" in refusal(path, key="net")


def test_a_module_in_two_places_is_refused_before_it_is_walked(tmp_path, persistent):
    """Thirty levels of two references each would take 2^30 steps."""
    leaf = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    node = persistent("Tiny", leaf)
    for _ in range(30):
        node = persistent("Tiny", {"_parameters": {}, "_buffers": {}, "_modules": {"a": node, "b": node}})
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"ema": node}))
    assert "occurs twice" in refusal(path)


def test_a_description_needs_no_local_class(save, tmp_path):
    path, net = save(label_dim=10)
    found = contents.describe_pickle(path, checkout=tmp_path)
    info = found.networks["ema"]
    assert info == found.network
    assert (info.class_name, info.init_args, info.init_kwargs) == ("Tiny", (4,), {"label_dim": 10})
    assert (info.resolution, info.channels, info.label_dim, info.dtypes) == (8, 1, 10, ("float32",))
    assert info.parameters == sum(p.numel() for p in net.parameters()) == 16
    assert info.nbytes == 4 * (16 + 4)
    assert found.objects["loss_fn"].settings == {"a": 1}
    assert [(source.classes, source.local) for source in found.sources] == [
        (("Tiny", "Inner"), "tiny_net.py"),
        (("L",), None),
    ]
    assert not found.refusals and found.damage is None


def test_a_file_with_flipped_bytes_is_read_or_refused_and_nothing_else(save):
    """Whatever a bit error or an attacker makes of a snapshot: no other exception, nothing run."""
    path, _ = save()
    whole, random = path.read_bytes(), Random(0)
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(random.choice((1, 1, 3, 10))):
            damaged[random.randrange(len(damaged))] = random.choice(
                (random.randrange(256), *b".Rb0(t)}]euasQ\x93\x81\x94")
            )
        path.write_bytes(damaged)
        contents.describe_pickle(path)
        with contextlib.suppress(UserError):
            network.load(path, classes=CLASSES)
    assert not (path.parent / "pwned").exists()
