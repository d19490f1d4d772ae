"""What needs a CUDA device: run with `pytest -m gpu`."""

import pytest
import torch

from motet.nn.attention import make_plan
from motet.nn.block import BlockConfig
from motet.nn.mot import MixtureOfTransformers, MoTConfig
from motet.types import Layout
from tests.nn.test_attention import RULES, random_layout

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.double().cpu() - truth).norm() / truth.norm())


@pytest.mark.parametrize("size", [32, 4])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("backend", ["sdpa", "flex", "auto"])
def test_backends_equal_the_fp64_reference_in_fp32(backend, name, size):
    layout = random_layout(0, tokens=700, samples=3)
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(700, 4, size, dtype=torch.float64, generator=g) for _ in range(3))
    truth, found = [], []
    for device, dtype, kind, into in (
        ("cpu", torch.float64, "reference", truth),
        ("cuda", torch.float32, backend, found),
    ):
        plan = make_plan(RULES[name], layout.to(device), backend=kind)
        here = [t.to(device, dtype).requires_grad_() for t in (q, k, v)]
        out = plan.attend(*here)
        into += [out.detach(), *torch.autograd.grad(out.square().sum(), here)]
    for a, b in zip(found, truth, strict=True):
        assert error(a, b) < 3e-3  # flex multiplies in tf32


def test_no_wait_for_the_host_inside_a_block():
    layout = random_layout(1, tokens=400, samples=2).to("cuda")
    model = MixtureOfTransformers(
        MoTConfig(BlockConfig(width=64, heads=4), depth=2), layout.modalities
    ).cuda()
    x = torch.randn(400, 64, device="cuda", requires_grad=True)
    plans = model.plans(layout)
    model(x, layout, plans).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(x, layout, plans).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_block_compiled_for_the_gpu_equals_the_eager_one_for_every_mix():
    names = ("text", "image", "audio")
    model = MixtureOfTransformers(MoTConfig(BlockConfig(width=64, heads=4), depth=1), names).cuda()
    compiled = torch.compile(model.blocks[0], fullgraph=True)
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        modality = torch.randint(0, 1 + seed % 3, (256,), generator=g)
        layout = Layout.build(names, modality, torch.arange(4).repeat_interleave(64))[0].to("cuda")
        x = torch.randn(256, 64, device="cuda", requires_grad=True)
        plans, rotation = model.plans(layout), model.rotary(layout)
        a, b = compiled(x, layout, plans[0], rotation), model.blocks[0](x, layout, plans[0], rotation)
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
